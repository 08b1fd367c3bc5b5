"""docs/yaml.md against the schema, the variables and the diagnostics that it is about."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from planner.cli.schema import schema
from planner.config.environment import KNOWN, PREFIX
from planner.config.load import load
from planner.config.schema import ComponentQuantizeConfig, MaskBins
from planner.config.schema_faults import SECTIONS as FAULTS
from planner.config.schema_faults import TEXT
from planner.config.schema_page import page
from planner.config.schema_words import EXAMPLES
from planner.config.section import SECTIONS, TOP_LEVEL

# Of a request or of a plan file, not of a config.
ELSEWHERE = {"invalid-request", "program-steps", "malformed-program"}
REPORTED = (
    r"Severity\.(?:ERROR|WARNING)[^,]*,\s*\"([a-z-]+)\"",
    r"DocumentError\(\s*\"([a-z-]+)\"",
    r"code[^=\n]* = \"([a-z-]+)\"",
)


def test_the_page_in_docs_is_what_the_command_prints() -> None:
    printed = CliRunner().invoke(schema, ["--format", "markdown"])
    assert printed.exit_code == 0
    assert Path("docs/yaml.md").read_text() == printed.output, (
        "ditplan schema --format markdown > docs/yaml.md"
    )


def test_without_a_format_the_command_prints_json_schema() -> None:
    printed = CliRunner().invoke(schema, [])
    assert json.loads(printed.output)["$schema"].startswith("https://json-schema.org/")


def test_every_key_stands_on_the_page_with_a_sentence() -> None:
    for section in (*SECTIONS.values(), MaskBins, ComponentQuantizeConfig):
        for key, info in section.model_fields.items():
            assert info.description, key
            rows = re.findall(rf"^\| `{key}` \|.*$", page(), re.MULTILINE)
            assert any(info.description in row for row in rows), key


def test_every_variable_stands_on_the_page() -> None:
    named = {name for name in KNOWN if not name.startswith("SECONDARY_")}
    assert set(re.findall(rf"^\| `{PREFIX}(\w+)`", page(), re.MULTILINE)) == named


def test_every_error_and_warning_of_a_config_stands_on_the_page() -> None:
    reported = {
        code
        for room in ("config", "compile")
        for path in Path("planner", room).rglob("*.py")
        for pattern in REPORTED
        for code in re.findall(pattern, path.read_text())
        if not code.endswith("-without-effect")
    }
    assert len(reported) > 40
    listed = {fault.code for faults in (TEXT, *FAULTS.values()) for fault in faults}
    assert listed == reported - ELSEWHERE


@pytest.mark.parametrize("name", TOP_LEVEL)
def test_the_example_of_a_section_loads_without_a_word(name: str) -> None:
    config = load(EXAMPLES[name])
    assert config.document.value.keys() == {name}
    assert config.diagnostics == []
