"""Damages YAML texts in the ways that people, editors and attackers do."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

_TOKEN = re.compile(rb"[A-Za-z0-9_.]+|[^A-Za-z0-9_.]")
_PAIR = re.compile(rb"^([ -]*)([\w-]+):(.*)$", re.M)
SPECIALS = (
    *(b"null", b"~", b"true", b"off", b".inf", b"-.inf", b".nan", b"1e400", b"-1", b"0", b"0x7f"),
    *(b"0o17", b"1_000", b"12:30:45", b"2001-12-14", b"9" * 400, b"1" + b"0" * 5000, b"[]", b"{}"),
    *(b"[[", b"{{", b"]", b"}", b"- ", b"? ", b": ", b"#", b"|", b">-\n", b"%YAML 1.2\n", b"---\n"),
    *(b"...\n", b"&a ", b"*a", b"&a [*a, *a]", b"<<: *a", b"!!binary x", b"!!set {a}", b"!t "),
    *(b"!!python/object/apply:os.system [x]", b"'", b'"', b"\\", b"\t", b"\r", b"\0", b"\xff\xfe"),
    *(b"\xef\xbb\xbf", b"\xed\xa0\x80", "\u2028".encode(), "\U0001f600".encode(), b"@", b"`"),
    *(b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b, *b]\n", b"[" * 300, b"{a: " * 300, b"x" * 5000),
)


def mutated(texts: Sequence[bytes], choices: random.Random) -> bytes:
    """One of the texts after one to six changes."""
    text = choices.choice(texts)
    for _ in range(choices.choice((1, 1, 1, 2, 3, 6))):
        text = choices.choice(_MUTATIONS)(text, texts, choices)
    return text


def _bytes_flipped(text: bytes, _: Sequence[bytes], choices: random.Random) -> bytes:
    data = bytearray(text)
    for _ in range(choices.randint(1, 4)):
        if data:
            data[choices.randrange(len(data))] ^= 1 << choices.randrange(8)
    return bytes(data)


def _tokens_swapped(text: bytes, _: Sequence[bytes], choices: random.Random) -> bytes:
    tokens = _TOKEN.findall(text)
    if not tokens:
        return text
    i, j = choices.randrange(len(tokens)), choices.randrange(len(tokens))
    tokens[i], tokens[j] = tokens[j], tokens[i]
    return b"".join(tokens)


def _substituted(text: bytes, texts: Sequence[bytes], choices: random.Random) -> bytes:
    """Another key, or another value: of any text, or one that YAML gives a meaning."""
    here, there = [*_PAIR.finditer(text)], [*_PAIR.finditer(choices.choice(texts))]
    if not here or not there:
        return text
    pair, other = choices.choice(here), choices.choice(there)
    group = choices.choice((2, 3, 3))
    new = other[group] if choices.random() < 0.5 else b" " + choices.choice(SPECIALS)
    return text[: pair.start(group)] + new + text[pair.end(group) :]


def _spliced(text: bytes, texts: Sequence[bytes], choices: random.Random) -> bytes:
    """Lines of another text among its own, at another depth."""
    lines, others = text.split(b"\n"), choices.choice(texts).split(b"\n")
    start = choices.randrange(len(others))
    indent = b" " * choices.choice((0, 0, 1, 2, 4))
    part = [indent + line for line in others[start : start + choices.randint(1, 5)]]
    at = choices.randrange(len(lines) + 1)
    return b"\n".join(lines[:at] + part + lines[at + choices.randint(0, 3) :])


def _special_inserted(text: bytes, _: Sequence[bytes], choices: random.Random) -> bytes:
    at = choices.randint(0, len(text))
    return text[:at] + choices.choice(SPECIALS) + text[at:]


def _truncated(text: bytes, _: Sequence[bytes], choices: random.Random) -> bytes:
    start, end = sorted((choices.randint(0, len(text)), choices.randint(0, len(text))))
    return text[:start] + text[end:]


_MUTATIONS = (
    _bytes_flipped,
    _tokens_swapped,
    _substituted,
    _substituted,
    _spliced,
    _special_inserted,
    _truncated,
)
