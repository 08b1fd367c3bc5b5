"""Diagnostics show the place they are about, whatever the source looks like."""

from __future__ import annotations

import re
from typing import Any

import pytest

from planner.diagnostics import Diagnostic, Severity
from planner.render.diagnostics import count_diagnostics, render_diagnostics

SOURCE = "cache_config:\n  max_warmup_step: 8\n  Fn_compute_blocks: 1\n"


def finding(line: int, column: int, **fields: str) -> Diagnostic:
    about = {"field": "cache_config.key", "message": "not known", "hint": "", **fields}
    return Diagnostic(Severity.ERROR, "unknown-key", line=line, column=column, **about)


def rendered(diagnostic: Diagnostic, source: str = SOURCE, **options: Any) -> list[str]:
    text = render_diagnostics([diagnostic], source=source, source_name="cache.yaml", **options)
    return text.splitlines()


def under_caret(lines: list[str]) -> str:
    """What the caret line marks in the line above it."""
    at = next(i for i, line in enumerate(lines) if re.fullmatch(r" +\| +\^+", line))
    caret = lines[at]
    return lines[at - 1][caret.index("^") : caret.rindex("^") + 1]


def test_a_finding_is_shown_with_code_place_excerpt_and_hint() -> None:
    assert rendered(finding(2, 3, hint="did you mean max_warmup_steps?")) == [
        "error[unknown-key]: not known",
        "  --> cache.yaml:2:3 (cache_config.key)",
        "   |",
        " 1 | cache_config:",
        " 2 |   max_warmup_step: 8",
        "   |   ^^^^^^^^^^^^^^^",
        "  hint: did you mean max_warmup_steps?",
    ]


def test_a_finding_without_a_place_names_its_field() -> None:
    assert rendered(finding(0, 0, field="model"))[1:] == ["  --> model"]


def test_a_place_beyond_the_source_has_no_excerpt() -> None:
    assert rendered(finding(9, 1))[1:] == ["  --> cache.yaml:9:1 (cache_config.key)"]


def test_a_column_beyond_its_line_is_marked_at_the_end() -> None:
    assert rendered(finding(1, 99))[-1] == "   |" + " " * 14 + "^"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r", "\u2028"])
def test_lines_are_counted_as_yaml_counts_them(newline: str) -> None:
    source = SOURCE.replace("\n", newline)
    assert under_caret(rendered(finding(3, 3), source)) == "Fn_compute_blocks"


def test_a_byte_order_mark_takes_no_column() -> None:
    assert under_caret(rendered(finding(1, 1), "\ufeff" + SOURCE)) == "cache_config"


def test_the_caret_stands_under_its_key_after_tabs_and_escapes() -> None:
    lines = rendered(finding(1, 4), "\t\x1b:key: 1")
    assert lines[-2] == r" 1 |     \x1b:key: 1"
    assert under_caret(lines) == "key"


def test_the_caret_counts_wide_characters_twice() -> None:
    lines = rendered(finding(1, 5), "日本: key")
    assert lines[-1] == "   | " + " " * 6 + "^^^"
    assert rendered(finding(1, 6), "a\u0301 : key")[-1] == "   | " + " " * 4 + "^^^"


def test_a_quoted_value_is_marked_as_a_whole() -> None:
    assert under_caret(rendered(finding(1, 4), 'a: "b c" # d')) == '"b c"'


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("ascii", [False, True])
def test_of_an_endless_line_the_part_around_the_caret_is_shown(width: int, ascii: bool) -> None:
    filler = '"wörter": 1, ' * 5000
    source = "{" + filler + '"here": 2, ' + filler + "}"
    column = source.index('"here"') + 1
    lines = rendered(finding(1, column), source, width=width, ascii=ascii)
    assert max(len(line) for line in lines if "-->" not in line) <= width
    assert under_caret(lines) == '"here"'
    assert re.fullmatch(r" 1 \| \.\.\.[^.].*[^.]\.\.\.", lines[-2])
    assert rendered(finding(1, 1), source, width=width)[-2].endswith("...")


def test_nothing_of_the_source_reaches_the_terminal_as_a_command() -> None:
    lines = rendered(finding(1, 1, message="\x1b[2J", hint="\x07"), "\x1b]0;title\x07: 1")
    assert all(line.isprintable() for line in lines)


def test_ascii_escapes_what_it_cannot_show() -> None:
    lines = rendered(finding(1, 1, message="größer"), "schlüssel: 1", ascii=True)
    assert all(line.isascii() for line in lines)
    assert under_caret(lines) == r"schl\xfcssel"


def test_long_messages_wrap_and_long_words_stay_whole() -> None:
    path = "/a" * 40
    lines = rendered(finding(0, 0, message=f"{'word ' * 30}{path}"), width=60)
    assert any(line.strip() == path for line in lines)
    assert all(len(line) <= 60 for line in lines if path not in line)


def test_the_lines_of_a_hint_stay_apart() -> None:
    lines = rendered(finding(0, 0, hint="cache_config:\n  max_warmup_steps: 8"))
    assert [line[8:] for line in lines[-2:]] == ["cache_config:", "  max_warmup_steps: 8"]


def test_no_diagnostics_are_no_text() -> None:
    assert render_diagnostics([], source=SOURCE, source_name="cache.yaml") == ""


def test_diagnostics_are_counted_by_severity() -> None:
    found = [Diagnostic(s, "c", "f", "m") for s in (*Severity, Severity.WARNING)]
    assert count_diagnostics(found) == "1 error, 2 warnings, 1 hint"
