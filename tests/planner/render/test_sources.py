"""Every value of a compilation is told with where it comes from."""

from __future__ import annotations

from planner.compile.sources import Source
from planner.config.schema import MaskBins
from planner.render.canvas import Canvas
from planner.render.sources import render_sources

SOURCES = (
    Source("num_inference_steps", 28, "request"),
    Source("cache_config.max_warmup_steps", 8, "file", 3),
    Source("cache_config.Fn_compute_blocks", 1, "SGLANG_CACHE_DIT_FN"),
    Source("cache_config.enable_taylorseer", True, "default"),
)


def test_the_origin_stands_before_the_key_and_its_value() -> None:
    assert render_sources(SOURCES, Canvas()) == [
        "  request              num_inference_steps: 28",
        "  line 3               cache_config.max_warmup_steps: 8",
        "  SGLANG_CACHE_DIT_FN  cache_config.Fn_compute_blocks: 1",
        "  default              cache_config.enable_taylorseer: true",
    ]


def test_values_are_what_a_file_would_have() -> None:
    values = (
        None,
        False,
        "fast",
        "",
        0.12,
        1e-8,
        [1, 0],
        MaskBins(compute_bins=[8], cache_bins=[1]),
    )
    lines = render_sources([Source("k", value, "default") for value in values], Canvas())
    assert [line.partition("k: ")[2] for line in lines] == [
        "null",
        "false",
        "fast",
        '""',
        "0.12",
        "1.0e-08",
        "[1, 0]",
        '{"compute_bins": [8], "cache_bins": [1]}',
    ]


def test_long_values_wrap_beside_their_origin() -> None:
    mask = Source("cache_config.steps_computation_mask", [1, 0] * 40, "file", 2)
    lines = render_sources([mask], Canvas(60))
    assert max(map(len, lines)) <= 60
    assert all(line.startswith(" " * 10) for line in lines[1:])


def test_control_characters_are_shown_not_sent() -> None:
    (line,) = render_sources([Source("k", "\x1b[31m", "file", 1)], Canvas())
    assert "\x1b" not in line
