"""How text is to look where it is going, and what is said on the way there."""

from __future__ import annotations

import codecs
import os
import shutil
import sys
from collections.abc import Iterable
from typing import TextIO, TypedDict

import click

from planner.diagnostics import Diagnostic
from planner.render.diagnostics import render_diagnostics

_PAGE_WIDTH = 80


class Look(TypedDict):
    """How a stream wants its text; keyword arguments of the text renderings."""

    width: int
    color: bool
    ascii: bool


def look(stream: TextIO | None) -> Look:
    """Colour on a terminal that wants it, signs beyond ASCII where the encoding has them."""
    if stream is None:
        return Look(width=_PAGE_WIDTH, color=False, ascii=False)
    terminal = stream.isatty()
    return Look(
        width=shutil.get_terminal_size((_PAGE_WIDTH, 24)).columns if terminal else _PAGE_WIDTH,
        color=terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
        ascii=not codecs.lookup(stream.encoding or "ascii").name.startswith("utf"),
    )


def report(diagnostics: Iterable[Diagnostic], *, source: str, source_name: str) -> None:
    """Diagnostics on standard error, with excerpts of the source they are about."""
    text = render_diagnostics(
        diagnostics, source=source, source_name=source_name, **look(sys.stderr)
    )
    click.echo(text, err=True, nl=False)
