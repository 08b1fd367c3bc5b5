"""Text to plain values: what YAML means here, where everything stands, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.config.document import (
    MAX_CONFIG_BYTES,
    MAX_DEPTH,
    MAX_KEY_LENGTH,
    MAX_NUMBER_LENGTH,
    MAX_VALUES,
    DocumentError,
    Place,
    parse,
)

HANG_SECONDS = 1.0


def refusal(text: str | bytes) -> tuple[str, int, int, str]:
    """Code, line, column and message of the one diagnostic, which comes in no time."""
    start = time.process_time()
    with pytest.raises(DocumentError) as caught:
        parse(text)
    assert time.process_time() - start < HANG_SECONDS
    found = caught.value.diagnostic
    return found.code, found.line, found.column, found.message


def exploding_aliases(levels: int) -> str:
    lines = ["k0: &k0 [x, x, x, x, x, x, x, x, x]"]
    for i in range(1, levels):
        lines.append(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 9)}]")
    return "\n".join(lines)


def exploding_merges(levels: int) -> str:
    lines = ["k0: &k0 {x: 1}"]
    for i in range(1, levels):
        lines.append(f"k{i}: &k{i} {{<<: [{', '.join([f'*k{i - 1}'] * 9)}], y{i}: 1}}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # More than there may be
        pytest.param(exploding_aliases(9), ("config-too-large", 1, 16), id="billion laughs"),
        pytest.param(exploding_merges(9), ("config-too-large", 1, 13), id="exploding merges"),
        pytest.param("#" * (MAX_CONFIG_BYTES + 1), ("config-too-large", 1, 1), id="bytes"),
        pytest.param("é" * (MAX_CONFIG_BYTES // 2 + 1), ("config-too-large", 1, 1), id="é bytes"),
        pytest.param("- 1\n" * MAX_VALUES, ("config-too-large", MAX_VALUES, 3), id="values"),
        pytest.param(f"a:\n  {'k' * 129}: 1", ("config-too-large", 2, 3), id="long key"),
        pytest.param("[" * 1000, ("config-too-deep", 1, MAX_DEPTH + 1), id="deep lists"),
        pytest.param("{a: " * 1000, ("config-too-deep", 1, 4 * MAX_DEPTH + 1), id="deep maps"),
        pytest.param("[1, " * 1000, ("config-too-deep", 1, 4 * MAX_DEPTH + 1), id="lists in lists"),
        pytest.param("- " * 100_000, ("config-too-deep", 1, 2 * MAX_DEPTH + 1), id="deep dashes"),
        pytest.param("? " * 100_000, ("config-too-deep", 1, 2 * MAX_DEPTH + 1), id="deep keys"),
        pytest.param(
            "".join(" " * i + "a:\n" for i in range(500)),
            ("config-too-deep", MAX_DEPTH + 1, MAX_DEPTH + 1),
            id="deep block",
        ),
        # Numbers whose conversion or printing takes for ever
        pytest.param(f"a: 1{':59' * 80_000}", ("yaml-value", 1, 4), id="sexagesimal"),
        pytest.param(f"a: 0x{'f' * 200_000}", ("yaml-value", 1, 4), id="hexadecimal"),
        pytest.param(f"a: {'9' * 200_000}", ("yaml-value", 1, 4), id="digits"),
        pytest.param(f"a: {'9' * 200_000}.0", ("yaml-value", 1, 4), id="float digits"),
        # Values that contain themselves
        pytest.param("a: &a\n  b: *a", ("yaml-alias", 1, 4), id="recursive mapping"),
        pytest.param("a:\n  - &a [*a]", ("yaml-alias", 2, 5), id="recursive list"),
        pytest.param("a: &a\n  <<: *a", ("yaml-alias", 1, 4), id="recursive merge"),
        pytest.param(
            "a: &a {<<: &b {<<: *a}}", ("yaml-alias", 1, 4), id="recursive through another merge"
        ),
        # Tags
        pytest.param(
            "a: !!python/object/apply:os.system [ls]", ("yaml-tag", 1, 4), id="python object"
        ),
        pytest.param("a: !!python/name:os.system ''", ("yaml-tag", 1, 4), id="python name"),
        pytest.param("a: !!binary aGk=", ("yaml-tag", 1, 4), id="binary tag"),
        pytest.param("a: !!set {b}", ("yaml-tag", 1, 4), id="set"),
        pytest.param("a:\n- !mine {b: 1}", ("yaml-tag", 2, 3), id="local tag"),
        pytest.param("a: !!bool maybe", ("yaml-value", 1, 4), id="no bool"),
        pytest.param("a: !!int ''", ("yaml-value", 1, 4), id="empty int"),
        pytest.param("a: !!float '-'", ("yaml-value", 1, 4), id="sign without a float"),
        pytest.param("a: 0b_", ("yaml-value", 1, 4), id="prefix without digits"),
        # Bytes and characters
        pytest.param(b"a: 1\nb: \xff", ("yaml-syntax", 2, 4), id="no UTF-8"),
        pytest.param("a: 1".encode("utf-16"), ("yaml-syntax", 1, 1), id="UTF-16"),
        pytest.param("a: '\ud800'", ("yaml-syntax", 1, 5), id="half a surrogate pair"),
        pytest.param("a: x\0y", ("yaml-syntax", 1, 5), id="NUL"),
        pytest.param("é: 1\r\né: \x07", ("yaml-syntax", 2, 4), id="bell after CRLF"),
        pytest.param("\x85a: \x1b", ("yaml-syntax", 2, 4), id="escape after NEL"),
        pytest.param("a:\n\tb: 1", ("yaml-syntax", 2, 1), id="tab as indentation"),
        # Not one document of plain mappings
        pytest.param("a: 1\n---\nb: 1", ("yaml-syntax", 2, 1), id="two documents"),
        pytest.param("a: 1\nb: 2\na: 3", ("duplicate-key", 3, 1), id="key twice"),
        pytest.param("a: {b: 1, 'b': 2}", ("duplicate-key", 1, 11), id="key twice, quoted"),
        pytest.param("? [a]\n: 1", ("yaml-syntax", 1, 3), id="list as key"),
        pytest.param("? {a: 1}\n: 1", ("yaml-syntax", 1, 3), id="mapping as key"),
        pytest.param("a: *b", ("yaml-syntax", 1, 4), id="unknown alias"),
        pytest.param("a: {<<: 1}", ("yaml-syntax", 1, 9), id="merge of a number"),
        pytest.param("a: {<<: [{}, 1]}", ("yaml-syntax", 1, 14), id="merge of a list"),
        # Syntax
        pytest.param("a: [1, 2", ("yaml-syntax", 1, 9), id="open list"),
        pytest.param("a: 'b", ("yaml-syntax", 1, 6), id="open quote"),
        pytest.param("a: @b", ("yaml-syntax", 1, 4), id="reserved sign"),
        pytest.param("a: b: c", ("yaml-syntax", 1, 5), id="mapping in a line"),
        pytest.param("%YAML 3.0\n---\na: 1", ("yaml-syntax", 1, 1), id="YAML 3"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_stands(
    text: str | bytes, expected: tuple[str, int, int]
) -> None:
    assert refusal(text)[:3] == expected


def test_nesting_beyond_the_bound_of_libyaml_is_too_deep() -> None:
    assert refusal("[" * 100_000)[:2] == ("config-too-deep", 1)


@pytest.mark.parametrize("text", [f"a: [{'1, ' * 80_000}]", f"{{{'a: 1, ' * 40_000}}}"])
def test_a_long_text_is_given_up_where_it_gets_too_long(text: str) -> None:
    code, line, column = refusal(text)[:3]
    assert (code, line) == ("config-too-large", 1)
    assert column < len(text) / 2


def test_bounds_are_inclusive() -> None:
    parse("#" * MAX_CONFIG_BYTES)
    parse(f"{'k' * MAX_KEY_LENGTH}: {'1' * MAX_NUMBER_LENGTH}")
    parse("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    parse("- 1\n" * (MAX_VALUES - 1))


def test_a_refusal_repeats_no_more_than_a_few_words() -> None:
    assert len(refusal(f"a: {'9' * 200_000}")[3]) < 80


def test_hostile_text_needs_little_memory() -> None:
    script = f"""
import resource, sys
from planner.config.document import DocumentError, parse
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for text in ({exploding_aliases(9)!r}, {exploding_merges(9)!r}, "[" * 200_000, "- 1\\n" * 60_000):
    try:
        parse(text)
    except DocumentError:
        continue
    sys.exit("not refused")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) < 100 * 1024, "KiB"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        # YAML 1.1, as Cache-DiT reads it
        ("1e-3", "1e-3"),
        ("1.0e-3", 0.001),
        ("1e3", "1e3"),
        ("010", 8),
        ("0o10", "0o10"),
        ("0x10", 16),
        ("1_000", 1000),
        ("1:30", 90),
        ("yes", True),
        ("Off", False),
        ("'yes'", "yes"),
        ("~", None),
        ("", None),
        ("null", None),
        ("2026-01-02", "2026-01-02"),
        ("2026-99-99", "2026-99-99"),
        ("=", "="),
        (".inf", float("inf")),
        ("-1", -1),
        ("!!int '3'", 3),
        ("!!str 3", "3"),
        ("{b: [1, 0]}", {"b": [1, 0]}),
        ("|\n  text", "text"),
    ],
)
def test_scalars_mean_what_yaml_1_1_says(written: str, value: Any) -> None:
    parsed = parse(f"a: {written}").value["a"]
    assert (parsed, type(parsed)) == (value, type(value))


def test_nan_is_a_float() -> None:
    parsed = parse("a: .nan").value["a"]
    assert parsed != parsed


@pytest.mark.parametrize("text", ["", "  \n\n", "# nothing\n", "---\n", "null", "---\n...\n"])
def test_an_empty_text_has_no_value(text: str) -> None:
    assert parse(text).value is None


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_places_do_not_depend_on_line_endings(ending: str) -> None:
    document = parse(ending.join(["a:", "  b: 1", "  c:", "  - 2", "  - x"]))
    assert document.places["a", "b"] == Place((2, 3), (2, 6))
    assert document.places["a", "c", 1] == Place((5, 5), (5, 5))


def test_a_byte_order_mark_takes_no_column() -> None:
    for text in ("\ufeffa: 1", b"\xef\xbb\xbfa: 1"):
        assert parse(text).places["a",] == Place((1, 1), (1, 4))


def test_places_of_flow_style_are_those_of_each_item() -> None:
    places = parse("a: {b: [1, 22, 3], 'c d': {e: 5}}").places
    assert places["a",] == Place((1, 1), (1, 4))
    assert places["a", "b"] == Place((1, 5), (1, 8))
    assert places["a", "b", 1] == Place((1, 12), (1, 12))
    assert places["a", "c d", "e"] == Place((1, 28), (1, 31))


def test_columns_count_characters() -> None:
    assert parse("{'ä€𝄞': 1, b: 2}").places["b",] == Place((1, 12), (1, 15))


def test_an_alias_stands_where_its_text_is() -> None:
    document = parse("a: &x [1, 2]\nb:\n  c: *x\n")
    assert document.value == {"a": [1, 2], "b": {"c": [1, 2]}}
    assert document.places["b", "c"] == Place((3, 3), (1, 4))
    assert document.places["b", "c", 1] == Place((1, 11), (1, 11))


@pytest.mark.parametrize("order", ["<<: *base\n  k: 2", "k: 2\n  <<: *base"])
def test_own_keys_win_over_merged_ones_in_value_and_place(order: str) -> None:
    document = parse(f"base: &base {{k: 1, l: 1}}\na:\n  {order}\n")
    assert document.value["a"] == {"k": 2, "l": 1}
    assert document.places["a", "k"].value[0] > 1
    assert document.places["a", "l"] == Place((1, 20), (1, 23))


def test_of_several_merged_mappings_the_first_wins() -> None:
    document = parse("- &x {k: 1}\n- &y {k: 2, l: 2}\n- {<<: [*x, *y]}")
    assert document.value[2] == {"k": 1, "l": 2}
    assert document.places[2, "k"].key == (1, 7)


def test_a_quoted_merge_sign_is_a_key() -> None:
    assert parse("'<<': {a: 1}").value == {"<<": {"a": 1}}


def test_numbers_of_json_are_numbers() -> None:
    assert parse('{"a": 1e-3, "b": [-2E5], "c": "1e-3"}').value == {
        "a": 0.001,
        "b": [-2e5],
        "c": "1e-3",
    }
    assert parse('{"a": 1e-3, b: 1}').value == {"a": "1e-3", "b": 1}


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text("abc é\"'\\:{}[]#", max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc _é", max_size=4), inner)
    ),
    max_leaves=20,
)


@given(plain, st.sampled_from([None, 2, "\t"]))
def test_json_is_read_as_json(value: Any, indent: int | str | None) -> None:
    assert parse(json.dumps({"a": value}, indent=indent)).value == {"a": value}


@given(st.text(max_size=200) | st.text("{}[]&*!|>'\"%@`-?:,#ab \n\t<", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(DocumentError):
        parse(text)


@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(DocumentError):
        parse(data)
