"""The page of a plan is self-contained and well-formed, and shows what the other forms show."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from planner.compile.compiler import Compilation
from planner.diagnostics import Diagnostic, Severity
from planner.render.html import render_html

PLAN_ID = "0123456789ab" + "c" * 52
VOID = {"meta"}
SOURCE = "cache_config:\n  max_warmup_step: 8\n"
ERROR = Diagnostic(Severity.ERROR, "bad", "x", "it is <wrong>", "right", line=2, column=3)


class Page(HTMLParser):
    """A parsed page: its texts by element, its start tags; fails where tags do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag: str) -> list[str]:
        return [text for where, text in self.texts if where == tag]


def page_of(compilation: Compilation, *, source: str = "", model: str = "some/model") -> Page:
    return Page(html_of(compilation, source=source, model=model))


def html_of(compilation: Compilation, *, source: str = "", model: str = "some/model") -> str:
    plan_id = PLAN_ID if compilation.program else None
    name = "dir/cache.yaml"
    return render_html(compilation, plan_id, source=source, source_name=name, model=model)


@pytest.mark.parametrize("name", ["flux", "costly_flux", "long_flux", "expert_pair"])
def test_every_step_is_a_cell_of_a_picture_in_the_page(
    name: str, request: pytest.FixtureRequest
) -> None:
    compilation: Compilation = request.getfixturevalue(name)
    assert compilation.program is not None
    tips = [text for text in page_of(compilation).of("title") if text.startswith("step ")]
    assert len(tips) == len(compilation.program.steps) * len(compilation.program.columns)


def test_the_page_begins_with_the_numbers_that_matter(costly_flux: Compilation) -> None:
    page = page_of(costly_flux)
    assert page.of("h1") == ["some/model"]
    assert page.of("b") == [
        "11 to 28 of 28 steps",
        "1.00x to 2.40x",
        "700 TFLOPs to 1.68 PFLOPs",
        "25.5 GiB or more",
    ]
    assert [text for text in page.of("li") if "estimate" in text] == [
        "compute of a run, an estimate",
        "memory per rank, an estimate",
    ]


def test_the_facts_of_the_other_forms_are_in_the_page(costly_flux: Compilation) -> None:
    page = page_of(costly_flux)
    assert page.of("dt")[:2] == ["speed-up", "DBCache"]
    assert page.of("dt")[-1] == "estimate"
    assert any(text.startswith("memory: at least 25.5 GiB") for text in page.of("dd"))
    assert page.of("code") == [PLAN_ID]
    at = page.of("text").index("ring 1, rank")
    assert page.of("text")[at + 1 : at + 5] == ["4", "5", "6", "7"]


def test_findings_come_with_excerpt_and_their_lines_are_marked(flux: Compilation) -> None:
    page = page_of(replace(flux, diagnostics=(ERROR,)), source=SOURCE)
    (finding,) = page.of("pre")
    assert "error[bad]: it is <wrong>" in finding
    assert "2 |   max_warmup_step: 8" in finding
    assert "^^^^" in finding
    marks = [attributes["class"] for tag, attributes in page.tags if "class" in attributes]
    assert marks == ["tiles", "error", "config", "", "error"]


def test_a_failed_compilation_shows_what_is_wrong_and_no_plan(flux: Compilation) -> None:
    failed = Compilation(None, None, flux.request, (ERROR,))
    page = page_of(failed, source=SOURCE)
    assert "svg" not in [tag for tag, _ in page.tags]
    assert page.of("h2") == ["Diagnostics: 1 error", "dir/cache.yaml"]
    assert page.of("footer") == ["no plan"]


def test_text_from_outside_is_escaped(expert_pair: Compilation) -> None:
    evil = "</pre></svg><script>alert(1)</script>\"'&\x1b\x00\udcff"
    finding = Diagnostic(Severity.WARNING, "w", evil, evil, evil, line=1, column=1)
    assert expert_pair.program is not None
    placement = replace(expert_pair.program.placement, exclude_layers=(evil,))
    compilation = replace(
        expert_pair,
        program=replace(expert_pair.program, placement=placement, attention_backend=evil),
        diagnostics=(finding,),
    )
    html = html_of(compilation, source=evil, model=evil)
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.of("h1")[0].startswith("</pre></svg><script>")
    assert not re.search("[\x00\x1b\udcff]", html)


def test_nothing_is_loaded_from_elsewhere(costly_flux: Compilation) -> None:
    html = html_of(costly_flux)
    assert set(re.findall(r"https?://[^\"]+", html)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(script|img|image|link|foreignObject|iframe)|href=|src=|@import", html)
    assert "default-src 'none'" in html


def test_ids_are_unique_in_the_page(costly_flux: Compilation) -> None:
    ids = [attributes["id"] for _, attributes in page_of(costly_flux).tags if "id" in attributes]
    assert len(ids) == len(set(ids)) == 2
