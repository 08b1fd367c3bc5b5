"""The example files: each compiles to what its comment promises, most of them for FLUX.1-dev."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.compile.compiler import Compilation, compile_config
from planner.compile.plan import (
    AdaptiveRule,
    CacheType,
    Calibrator,
    OpKind,
    Placement,
    TaylorSeer,
    Topology,
)
from planner.compile.request import Request
from planner.models.facts import ModelFacts
from planner.models.resolve import from_name

EXAMPLES = Path(__file__).parents[3] / "deploy" / "examples"

FULL = "F" * 28
DBCACHE = "F?F?F?F?" + "?" * 20
SCM = "FFFFFF?F???F????F?????F????F"
FLOAT8 = Placement("float8_per_row", ("embed", "embedder"))
EXTRA = ("text_encoder", "vae")
TWO_FORWARDS = "Wan-AI/Wan2.1-T2V-14B-Diffusers"


def compiled(name: str, model: ModelFacts, gpus: int) -> Compilation:
    config = (EXAMPLES / f"{name}.yaml").read_bytes()
    compilation = compile_config(config, model, Request(28, gpus))
    assert compilation.program is not None, compilation.diagnostics
    return compilation


def ulysses(ranks: int, **flags: object) -> Topology:
    return Topology(world_size=ranks, ulysses_size=ranks, **flags)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "gpus", "strip", "topology", "placement", "backend", "findings"),
    [
        ("cache", 1, DBCACHE, Topology(), Placement(), "", []),
        ("cache-scm", 1, SCM, Topology(), Placement(), "", ["mask-not-reached"]),
        (
            "cache-scm-cfg",
            1,
            SCM,
            Topology(),
            Placement(),
            "",
            ["mask-not-reached", "misspelt-key", "one-branch"],
        ),
        ("parallel", 4, FULL, ulysses(4), Placement(), "native", []),
        (
            "parallel-2d",
            4,
            FULL,
            Topology(world_size=4, ulysses_size=2, tp_size=2),
            Placement(),
            "native",
            [],
        ),
        (
            "parallel-3d",
            8,
            FULL,
            Topology(world_size=8, ring_size=2, ulysses_size=2, tp_size=2),
            Placement(),
            "native",
            [],
        ),
        (
            "parallel-uaa",
            5,
            FULL,
            ulysses(5, ulysses_anything=True),
            Placement(),
            "native",
            [],
        ),
        (
            "parallel-guidance",
            4,
            FULL,
            Topology(world_size=4, ulysses_size=2, guidance_size=2),
            Placement(),
            "native",
            [],
        ),
        ("parallel-fp8", 4, FULL, ulysses(4, ulysses_float8=True), Placement(), "native", []),
        ("parallel-async", 4, FULL, ulysses(4, ulysses_async=True), Placement(), "native", []),
        (
            "parallel-extra",
            4,
            FULL,
            ulysses(4, extra_parallel_modules=EXTRA),
            Placement(),
            "native",
            [],
        ),
        (
            "hybrid",
            2,
            DBCACHE,
            ulysses(2, extra_parallel_modules=EXTRA),
            Placement(),
            "native",
            [],
        ),
        ("attention", 1, FULL, Topology(), Placement(), "flash", []),
        ("quantize", 1, FULL, Topology(), FLOAT8, "", ["quant-type-alias"]),
        (
            "combined",
            4,
            DBCACHE,
            ulysses(4, extra_parallel_modules=EXTRA),
            FLOAT8,
            "native",
            ["quant-type-alias"],
        ),
    ],
)
def test_an_example_compiles_to(
    name: str,
    gpus: int,
    strip: str,
    topology: Topology,
    placement: Placement,
    backend: str,
    findings: list[str],
    flux: ModelFacts,
) -> None:
    model = from_name(TWO_FORWARDS) if topology.guidance_size > 1 else flux
    compilation = compiled(name, model, gpus)
    program = compilation.program
    assert program is not None
    letters = {OpKind.FULL: "F", OpKind.CACHED: "c", OpKind.ADAPTIVE: "?"}
    assert "".join(letters[op.kind] for op, *_ in program.steps if op is not None) == strip
    assert program.topology == topology
    assert program.placement == placement
    assert program.attention_backend == backend
    assert [d.code for d in compilation.diagnostics] == findings


@pytest.mark.parametrize("name", ["cache", "cache-scm", "cache-scm-cfg", "hybrid", "combined"])
def test_the_caches_of_the_examples_are_one_cache(name: str, flux: ModelFacts) -> None:
    program = compiled(name, flux, 2 if name in ("hybrid", "combined") else 1).program
    assert program is not None
    (column,) = program.columns
    assert (column.fn_compute_blocks, column.bn_compute_blocks) == (1, 0)
    assert column.calibrator == Calibrator(CacheType.RESIDUAL, TaylorSeer(1))
    rules = {op.adaptive for (op,) in program.steps if op is not None and op.adaptive}
    assert rules == {AdaptiveRule(0.12, max_continuous_cached_steps=2)}


def test_the_mask_says_what_keeps_it_from_being_reached(flux: ModelFacts) -> None:
    compilation = compiled("cache-scm", flux, 1)
    (found,) = compilation.diagnostics
    assert "max_continuous_cached_steps allows no fewer than 15" in found.message
    assert (found.line, found.column) == (14, 27)
    assert compilation.estimate is not None
    assert compilation.estimate.min_computed_steps == 15


def test_every_example_is_tested() -> None:
    (mark,) = (m for m in test_an_example_compiles_to.pytestmark)  # type: ignore[attr-defined]
    assert sorted(case[0] for case in mark.args[1]) == sorted(p.stem for p in EXAMPLES.iterdir())
