"""The ways to run a transformer that are measured against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from executor.engine.execution import Execution
from executor.engine.program import AdaptiveRule, Calibrator, OpKind, TaylorSeer
from tests.bench.engine.models import Inputs, Subject, cut
from tests.executor.engine.programs import flux_program, uncached

WARM_UP = 6
"""Forwards before the measured ones: TaylorSeer has its slope from the fourth on."""

FN = 1
REUSE = Calibrator()
TAYLOR = Calibrator(forecast=TaylorSeer(1))
# Every evaluated residual diff lies between the two.
NEVER, ALWAYS = AdaptiveRule(1e-12), AdaptiveRule(0.999999)


@dataclass(frozen=True, slots=True)
class Lane:
    """``call`` is measured, ``around`` it is not; ``against`` is the lane it is compared with."""

    name: str
    call: Callable[[Inputs], object]
    against: str = "plain diffusers"
    around: Callable[[], AbstractContextManager[Any]] = nullcontext


def plain(subject: Subject) -> Iterator[Lane]:
    """The model itself, with its first blocks alone, and without any."""
    yield Lane("plain diffusers", lambda inputs: subject.transformer(**inputs))
    first, none = cut(subject.transformer, FN), cut(subject.transformer, 0)
    yield Lane("plain, first block alone", lambda inputs: first(**inputs))
    yield Lane("plain, no blocks", lambda inputs: none(**inputs))


def planned(subject: Subject) -> Iterator[Lane]:
    """Programs of which every measured step does the same."""
    full, cached = "FULL, stores for reuse", "CACHED, reuse"
    bare = uncached(WARM_UP + subject.forwards)
    yield _planned("uncached program", subject, "1", program=bare)
    yield _planned("FULL, nothing to store", subject, "1", ends="")
    yield _planned(full, subject, "1")
    yield _planned("FULL, stores for TaylorSeer", subject, "1", TAYLOR)
    alone = "plain, first block alone"
    yield _planned(cached, subject, "0", against=alone)
    yield _planned("CACHED, TaylorSeer 1", subject, "0", TAYLOR, against=alone)
    yield _planned("ADAPTIVE, computes", subject, "?", rule=NEVER, against=full)
    yield _planned("ADAPTIVE, caches", subject, "?", rule=ALWAYS, against=cached)


def _planned(
    name: str,
    subject: Subject,
    kind: str,
    calibrator: Calibrator = REUSE,
    *,
    rule: AdaptiveRule | None = None,
    ends: str = "?0",
    against: str = "plain diffusers",
    program: Any = None,
) -> Lane:
    """``ends``: steps beyond the measured ones, which make those store what they would read."""
    transformer = subject.transformer
    strip = "1" * WARM_UP + kind * subject.forwards
    if program is None:
        program = flux_program(strip + ends, fn=FN, rule=rule, calibrator=calibrator)
        if kind != "?":
            # Without a test there is no reference to keep.
            program = flux_program(strip + ends[1:], fn=FN, calibrator=calibrator)
    execution = Execution({"transformer": transformer}, program)
    does = OpKind.CACHED if kind == "0" or rule is ALWAYS else OpKind.FULL

    def call(inputs: Inputs) -> None:
        transformer(**inputs)
        (outcome,) = execution.end_step()
        assert outcome is not None
        assert outcome.kind is does or execution._step <= WARM_UP

    return Lane(name, call, against, execution.attached)


def diffusers_hooks(subject: Subject) -> Iterator[Lane]:
    """The caches that diffusers brings along."""
    from diffusers import FirstBlockCacheConfig, TaylorSeerCacheConfig

    def hooked(name: str, config: Any, **options: Any) -> Lane:
        transformer = subject.copy()
        transformer.enable_cache(config)
        return Lane(
            f"diffusers {name}",
            lambda inputs: transformer(**inputs),
            around=lambda: transformer.cache_context("cond"),
            **options,
        )

    full = TaylorSeerCacheConfig(disable_cache_before_step=10**9)
    lite = TaylorSeerCacheConfig(
        disable_cache_before_step=WARM_UP, cache_interval=10**9, use_lite_mode=True
    )
    yield hooked("FirstBlockCache, computes", FirstBlockCacheConfig(threshold=0.0))
    alone = "plain, first block alone"
    yield hooked("FirstBlockCache, caches", FirstBlockCacheConfig(threshold=1.0), against=alone)
    yield hooked("TaylorSeer on attention, computes", full)
    yield hooked(
        "TaylorSeer on attention, forecasts",
        TaylorSeerCacheConfig(disable_cache_before_step=WARM_UP, cache_interval=10**9),
    )
    yield hooked("TaylorSeer lite, forecasts", lite, against="plain, no blocks")


def cache_dit(subject: Subject) -> Iterator[Lane]:
    """Cache-DiT on the same ops."""
    from cache_dit import DBCacheConfig, TaylorSeerCalibratorConfig, enable_cache

    steps = WARM_UP + subject.forwards + 1
    taylor = TaylorSeerCalibratorConfig(taylorseer_order=1, enable_encoder_calibrator=False)
    decided = DBCacheConfig(
        Fn_compute_blocks=FN,
        Bn_compute_blocks=0,
        max_warmup_steps=WARM_UP,
        num_inference_steps=steps,
        steps_computation_policy="static",
    )
    dynamic = replace(decided, steps_computation_policy="dynamic")

    def cached(name: str, config: Any, calibrator: Any = None, **options: Any) -> Lane:
        transformer = subject.copy()
        enable_cache(transformer, cache_config=config, calibrator_config=calibrator)
        return Lane(f"cache-dit {name}", lambda inputs: transformer(**inputs), **options)

    computes = replace(decided, steps_computation_mask=[1] * steps)
    caches = replace(decided, steps_computation_mask=[1] * WARM_UP + [0] * (steps - WARM_UP))
    alone = "plain, first block alone"
    yield cached("FULL", computes)
    yield cached("FULL, TaylorSeer 1", computes, taylor)
    yield cached("CACHED, reuse", caches, against=alone)
    yield cached("CACHED, TaylorSeer 1", caches, taylor, against=alone)
    never = replace(dynamic, residual_diff_threshold=NEVER.residual_diff_threshold)
    always = replace(dynamic, residual_diff_threshold=ALWAYS.residual_diff_threshold)
    yield cached("dynamic, computes", never, against="cache-dit FULL")
    yield cached("dynamic, caches", always, against="cache-dit CACHED, reuse")
