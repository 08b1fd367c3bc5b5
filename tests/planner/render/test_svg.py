"""The picture of a plan is self-contained, well-formed, and shows every op once."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from planner.compile.compiler import Compilation
from planner.compile.plan import Topology
from planner.diagnostics import Diagnostic, Severity
from planner.render.canvas import display_width
from planner.render.svg import render_svg

SVG = "{http://www.w3.org/2000/svg}"
PLAN_ID = "0123456789ab" + "c" * 52


def root_of(compilation: Compilation, **options: str) -> ElementTree.Element:
    return ElementTree.fromstring(render_svg(compilation, PLAN_ID, **options))


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def tooltips(root: ElementTree.Element) -> list[str]:
    return [rect.findtext(f"{SVG}title") or "" for rect in root.iter(f"{SVG}rect")]


def test_every_step_is_a_cell_that_tells_its_reason(flux: Compilation) -> None:
    tips = [tip for tip in tooltips(root_of(flux)) if tip.startswith("step ")]
    assert len(tips) == 28
    assert tips[0] == "step 0, transformer: full, warm-up"
    assert tips[1] == "step 1, transformer: adaptive, the residual diff decides at run time"


def test_every_column_has_its_cells(expert_pair: Compilation) -> None:
    tips = [tip for tip in tooltips(root_of(expert_pair)) if tip.startswith("step ")]
    assert Counter(tip.split(": ")[1].split(",")[0] for tip in tips) == {
        "full": 8,
        "cached": 4,
        "does not run": 12,
    }


def test_kinds_differ_in_more_than_hue(flux: Compilation) -> None:
    root = root_of(flux)
    fills = {
        (rect.findtext(f"{SVG}title") or "").split(": ")[-1].split(",")[0]: rect.get("fill", "")
        for rect in root.iter(f"{SVG}rect")
    }
    pattern = root.find(f".//{SVG}pattern")
    assert pattern is not None
    assert fills["adaptive"] == f"url(#{pattern.get('id')})"
    assert fills["full"].startswith("#")


@pytest.mark.parametrize("name", ["flux", "costly_flux", "long_flux", "expert_pair"])
def test_everything_lies_on_the_sheet(name: str, request: pytest.FixtureRequest) -> None:
    root = root_of(request.getfixturevalue(name))
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for rect in root.findall(f"{SVG}rect"):
        x, y, w, h = (float(rect.get(key, 0)) for key in ("x", "y", "width", "height"))
        assert 0 <= x < x + w <= width
        assert 0 <= y < y + h <= height
    baselines = [float(text.get("y", 0)) for text in root.iter(f"{SVG}text")]
    assert max(baselines) < height


def test_cells_of_many_steps_stay_wide_enough_to_point_at(long_flux: Compilation) -> None:
    cells = [
        rect
        for rect in root_of(long_flux).findall(f"{SVG}rect")
        if (rect.findtext(f"{SVG}title") or "").startswith("step ")
    ]
    assert len(cells) == 130
    assert min(float(cell.get("width", 0)) for cell in cells) >= 6


def test_bounds_reasons_rule_and_id_are_written(flux: Compilation) -> None:
    written = " ".join(texts(root_of(flux, model="some/model")))
    for expected in (
        "some/model",
        "computes 11 to 28 of 28 steps",
        "0, 2, 4, 6: warm-up",
        "residual_diff_threshold 0.12",
        "TaylorSeer of order 1",
        PLAN_ID,
    ):
        assert expected in written


def test_the_estimate_is_part_of_the_picture(costly_flux: Compilation) -> None:
    written = texts(root_of(costly_flux))
    assert written[written.index("estimate") + 1].startswith("compute: 700 TFLOPs to 1.68 PFLOPs")
    assert any(line.startswith("memory: at least 25.5 GiB") for line in written)


def test_the_ranks_are_boxes_under_their_coordinates(costly_flux: Compilation) -> None:
    written = texts(root_of(costly_flux))
    at = written.index("ring 1, rank")
    assert written[at + 1 : at + 5] == ["4", "5", "6", "7"]
    tp = written.index("tp")
    assert written[tp + 1 : tp + 5] == ["0", "1", "0", "1"]


def test_a_mesh_of_64_ranks_lies_on_the_sheet(flux: Compilation) -> None:
    assert flux.program is not None
    for axes in ((64, 1, 1), (1, 64, 1), (4, 4, 4), (1, 32, 2)):
        program = replace(flux.program, topology=Topology(64, *axes))
        root = root_of(replace(flux, program=program))
        assert sum(text == "63" for text in texts(root)) >= 1
        width = float(root.get("width", 0))
        assert all(
            float(rect.get("x", 0)) + float(rect.get("width", 0)) <= width
            for rect in root.findall(f"{SVG}rect")
        )


def test_warnings_are_part_of_the_picture(flux: Compilation) -> None:
    warning = Diagnostic(Severity.WARNING, "w", "cache_config", "beware", line=3)
    written = texts(root_of(replace(flux, diagnostics=(warning,))))
    assert written[written.index("warning") + 1] == "beware (line 3)"


def test_text_from_outside_is_escaped(flux: Compilation) -> None:
    name = "</text><script>alert(1)</script>&\x1b\udcff\x00"
    root = root_of(flux, model=name)
    assert root.find(f".//{SVG}script") is None
    assert texts(root)[0] == r"</text><script>alert(1)</script>&\x1b\udcff\x00"


def test_nothing_is_loaded_from_elsewhere(flux: Compilation) -> None:
    svg = render_svg(flux, PLAN_ID)
    assert re.findall(r"https?://[^\"]+", svg) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"<(script|image|style|foreignObject)|href=|@import", svg)


def test_a_long_name_keeps_its_end(flux: Compilation) -> None:
    title = texts(root_of(flux, model="/models" * 40 + "/flux"))[0]
    assert title.startswith("...")
    assert title.endswith("/models/flux")
    assert len(title) <= 52


def test_a_long_name_of_wide_characters_leaves_room_for_the_id(flux: Compilation) -> None:
    name = "模型" * 20
    title = next(t for t in texts(root_of(flux, model=name)) if t.endswith("模型"))
    assert title.startswith("...")
    assert display_width(title) <= 52


def test_two_pictures_on_a_page_do_not_share_ids(flux: Compilation) -> None:
    ids = [re.findall(r'id="([^"]+)"', render_svg(flux, c * 64)) for c in "ab"]
    assert ids[0] != ids[1]


def test_a_failed_compilation_has_no_picture(flux: Compilation) -> None:
    with pytest.raises(ValueError, match="no picture"):
        render_svg(replace(flux, program=None, estimate=None), PLAN_ID)
