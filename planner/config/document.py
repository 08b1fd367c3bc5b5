"""Reads YAML (or JSON) text into plain values and remembers where each one stands.

Hostile text is bounded: its bytes and nesting before anything is built, then the number of values
that aliases expand to and the length of keys and numbers. Only the tags of plain data are taken.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from planner.diagnostics import Diagnostic, Severity

MAX_CONFIG_BYTES = 256 * 1024
MAX_DEPTH = 16
MAX_VALUES = 10_000
MAX_KEY_LENGTH = 128
MAX_NUMBER_LENGTH = 64

Path = tuple[str | int, ...]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_SCALARS = {_TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp", "value")}
_NUMBERS = (_TAG + "int", _TAG + "float")
# YAML 1.1 takes it for a text unless it has both a dot and a sign in the exponent.
_JSON_FLOAT = re.compile(r"-?\d+(\.\d+)?[eE][+-]?\d+")
# Octal or sexagesimal.
_ODD_NUMBER = re.compile(r"[-+]?(0[0-7_]+|[0-9_]+(:[0-9]+)+)")
_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Place:
    """1-based line and column of a key (or list item) and of its value.

    The value of an alias is where its anchor stands, because that is the text to change.
    """

    key: tuple[int, int]
    value: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Document:
    """``value`` is None for an empty text. ``places`` maps the path of every value to its place."""

    value: Any
    places: dict[Path, Place] = field(default_factory=dict)
    # Whole numbers in a base that their writer may not expect: as written, and as YAML reads them.
    odd_numbers: dict[Path, tuple[str, int]] = field(default_factory=dict)


class DocumentError(ValueError):
    """The text is no usable YAML; ``diagnostic`` says where and why."""

    def __init__(self, code: str, message: str, *, hint: str = "", at: tuple[int, int]) -> None:
        super().__init__(message)
        line, column = at
        self.diagnostic = Diagnostic(Severity.ERROR, code, "", message, hint, line, column)


def parse(text: str | bytes) -> Document:
    """Plain values (dict, list, str, int, float, bool, None) with their places.

    Raises:
        DocumentError: the text is too large, not YAML, or not plain data.
    """
    source = _decode(text)
    try:
        _check_shape(source)
        root = yaml.compose(source, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # libyaml has a bound of its own, which its scanner may meet first.
        too_deep = "nesting depth" in (error.problem or "")
        raise DocumentError(
            "config-too-deep" if too_deep else "yaml-syntax",
            "; ".join(part for part in (error.context, error.problem) if part) or "not YAML",
            # The end of a text without a last line break is reported as a line of its own.
            at=min(_at(mark), _end_of(source)) if mark else (1, 1),
        ) from None
    if root is None:
        return Document(None)
    builder = _Builder(json_numbers=_is_json(source))
    value = builder.build(root, ())
    return Document(value, builder.places, builder.odd_numbers)


def _decode(text: str | bytes) -> str:
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_CONFIG_BYTES:
        raise DocumentError(
            "config-too-large",
            f"the config has more than {MAX_CONFIG_BYTES} bytes",
            at=(1, 1),
        )
    raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        source = raw.decode()
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode()
        raise DocumentError(
            "yaml-syntax", "the config is not UTF-8 text", at=_end_of(before)
        ) from None
    forbidden = yaml.reader.Reader.NON_PRINTABLE.search(source)
    if forbidden:
        raise DocumentError(
            "yaml-syntax",
            f"the character U+{ord(forbidden.group()):04X}, which YAML forbids",
            at=_end_of(source[: forbidden.start()]),
        )
    return source


def _end_of(text: str) -> tuple[int, int]:
    """Line and column of what follows a text."""
    lines = _LINE_BREAK.split(text)
    return len(lines), len(lines[-1]) + 1


def _check_shape(source: str) -> None:
    """Bounds nesting and size before anything is built.

    The composer recurses and is slow, the event stream is neither.
    """
    depth = nodes = 0
    for event in yaml.parse(source, Loader=_LOADER):
        if isinstance(event, yaml.NodeEvent):
            nodes += 1
            # Keys are nodes, too.
            if nodes > 2 * MAX_VALUES:
                raise DocumentError(
                    "config-too-large",
                    f"has more than {MAX_VALUES} values",
                    at=_at(event.start_mark),
                )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise DocumentError(
                    "config-too-deep",
                    f"nested deeper than {MAX_DEPTH} levels",
                    at=_at(event.start_mark),
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _is_json(source: str) -> bool:
    if not source.lstrip().startswith("{"):
        return False
    try:
        json.loads(source)
    except (ValueError, RecursionError):
        return False
    return True


def _at(mark: Any) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1


class _Builder:
    def __init__(self, *, json_numbers: bool) -> None:
        self._json_numbers = json_numbers
        self.places: dict[Path, Place] = {}
        self.odd_numbers: dict[Path, tuple[str, int]] = {}
        self._values = 0
        self._open: set[int] = set()
        self._constructor = yaml.constructor.SafeConstructor()

    def build(self, node: yaml.Node, path: Path) -> Any:
        """The plain value of a node; its place and those below it are noted under ``path``."""
        at = _at(node.start_mark)
        self._values += 1
        if self._values > MAX_VALUES:
            raise DocumentError(
                "config-too-large", f"expands to more than {MAX_VALUES} values", at=at
            )
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            self.places.setdefault(path, Place(at, at))
            value = self._scalar(node)
            if node.tag == _TAG + "int" and _ODD_NUMBER.fullmatch(node.value):
                self.odd_numbers[path] = node.value, value
            return value
        if id(node) in self._open:
            raise DocumentError("yaml-alias", "an alias makes this value contain itself", at=at)
        self._open.add(id(node))
        try:
            self.places.setdefault(path, Place(at, at))
            if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
                return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
        finally:
            self._open.remove(id(node))
        raise DocumentError("yaml-tag", f"the tag {node.tag} is not plain data", at=at)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if self._json_numbers and not node.style and _JSON_FLOAT.fullmatch(node.value):
            return float(node.value)
        # No key takes a date, so the text itself says more in a diagnostic.
        if node.tag in (_TAG + "timestamp", _TAG + "value"):
            return node.value
        try:
            if node.tag in _NUMBERS and len(node.value) > MAX_NUMBER_LENGTH:
                raise ValueError("too long")
            return self._constructor.construct_object(node)
        except (ValueError, LookupError, OverflowError, yaml.YAMLError):
            kind = node.tag.removeprefix(_TAG)
            raise DocumentError(
                "yaml-value", f"{node.value[:40]!r} is no {kind}", at=_at(node.start_mark)
            ) from None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        merges = [value for key, value in node.value if key.tag == _TAG + "merge"]
        # What is built later wins: own keys over merged ones, the first merged mapping over others.
        sources = [source for value in merges for source in _merge_sources(value)]
        merged: dict[str, Any] = {}
        for source in reversed(sources):
            merged |= self.build(source, path)
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                continue
            key, at = _key(key_node), _at(key_node.start_mark)
            if key in own:
                raise DocumentError(
                    "duplicate-key", f"{key!r} stands twice in the same mapping", at=at
                )
            child = (*path, key)
            self.places[child] = Place(at, _at(value_node.start_mark))
            own[key] = self.build(value_node, child)
        return merged | own


def _key(node: yaml.Node) -> str:
    at = _at(node.start_mark)
    if not isinstance(node, yaml.ScalarNode) or node.tag not in _SCALARS:
        raise DocumentError("yaml-syntax", "a key must be plain text", at=at)
    if len(node.value) > MAX_KEY_LENGTH:
        raise DocumentError(
            "config-too-large", f"a key of more than {MAX_KEY_LENGTH} characters", at=at
        )
    return str(node.value)


def _merge_sources(node: yaml.Node) -> Iterator[yaml.MappingNode]:
    candidates = node.value if isinstance(node, yaml.SequenceNode) else [node]
    for candidate in candidates:
        if not isinstance(candidate, yaml.MappingNode):
            raise DocumentError(
                "yaml-syntax", "<< takes a mapping or a list of them", at=_at(candidate.start_mark)
            )
        yield candidate
