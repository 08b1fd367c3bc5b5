"""Links of the README and the manual: files that are there, headings that are in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "deploy/README.md"]
# `make bench` writes it; where it was never run there is none.
MEASURED = ROOT / "docs/measured"

_LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(text: str) -> str:
    """What is no code: ``](`` there is no link, ``#`` no heading."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def anchors(text: str) -> set[str]:
    """Of its headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}


def broken(page: Path, text: str) -> Iterator[str]:
    """The links of a page that lead nowhere."""
    for link in _LINK.findall(prose(text)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if target.is_relative_to(MEASURED) and not MEASURED.exists():
            continue
        if not target.exists():
            yield f"{link}: there is no {name}"
        elif anchor and anchor not in anchors(target.read_text()):
            yield f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert list(broken(page, page.read_text())) == []


@pytest.mark.parametrize("link", ["nowhere.md", "service.md#nowhere", "#nowhere", "../nowhere"])
def test_a_broken_link_would_be_found(link: str) -> None:
    assert list(broken(ROOT / "docs/operations.md", f"see [there]({link})"))


def test_every_page_of_the_manual_is_linked_from_the_others() -> None:
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in _LINK.findall(page.read_text())
    }
    assert {page for page in PAGES if page.parent == ROOT / "docs"} <= linked
