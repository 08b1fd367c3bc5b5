"""A plan in sentences, with the key names of the YAML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from planner.compile.compiler import Compilation
from planner.compile.plan import (
    AdaptiveRule,
    CacheType,
    ComponentQuantization,
    Dmd,
    Estimate,
    FoCa,
    OpKind,
    Placement,
    Program,
    TaylorSeer,
    Topology,
)
from planner.compile.request import Request
from planner.render.costs import cost_in_words, speed_up
from planner.render.summary import by_column, may_cache, refreshed_steps, rules, spans

KIND_WORDS = {
    OpKind.FULL: "full",
    OpKind.ADAPTIVE: "adaptive (decided at run time)",
    OpKind.CACHED: "cached",
}

# The heading under which the mesh of ranks stands.
TOPOLOGY = "topology"


def short_id(plan_id: str) -> str:
    return plan_id[:12]


def facts(compilation: Compilation) -> list[tuple[str, str]]:
    """What there is to say beside the steps: pairs of a heading and a sentence.

    One without a heading goes on under the heading before it.
    """
    program, estimate = compilation.program, compilation.estimate
    if program is None or estimate is None:
        return []
    n = program.num_inference_steps
    found = [("speed-up", speed_up(estimate, n))]
    for label, each in by_column(program, lambda c: rules(program, c)):
        found += [("DBCache", _about(label, rule_in_words(rule))) for rule in each]
    for label, text in by_column(program, lambda c: _blocks(program, c)):
        found += [("blocks", _about(label, text))] if text else []
    for label, text in by_column(program, lambda c: _calibrator(program, c)):
        found += [("calibrator", _about(label, text))] if text else []
    if shared := shared_diff(program, range(program.num_inference_steps)):
        found.append(("branches", shared))
    if refreshed := refreshed_steps(program):
        found.append(("refresh", f"the cache starts anew before step {spans(refreshed)}"))
    if program.topology.world_size > 1:
        found.append((TOPOLOGY, _topology(program.topology)))
    found += [("quantized", sentence) for sentence in _quantization(program.placement)]
    found += [
        ("", text)
        for text in layers_in_words(
            (layers.component, layers.name, layers.count, layers.quant_type or layers.reason)
            for layers in compilation.layers
        )
    ]
    if program.attention_backend:
        found.append(("attention", f"attention_backend {program.attention_backend}"))
    if estimate.cost is not None:
        found += [
            ("" if number else "estimate", f"{heading}: {sentence}")
            for number, (heading, sentence) in enumerate(cost_in_words(estimate.cost, program))
        ]
    return found


def request_in_words(request: Request, times: str = "×") -> str:
    steps = request.num_inference_steps
    parts = [f"{steps} step{'s' * (steps != 1)}"]
    if request.width and request.height:
        parts.append(f"{request.width} {times} {request.height} pixels")
    if request.num_frames is not None:
        parts.append(f"{request.num_frames} frame{'s' * (request.num_frames != 1)}")
    if request.guidance_scale is not None:
        parts.append(f"guidance {request.guidance_scale:g}")
    if request.negative_prompt:
        parts.append("a negative prompt")
    world = request.world_size or 1
    parts.append(f"{world} GPU{'s' * (world > 1)}")
    return ", ".join(parts)


def shared_diff(program: Program, steps: Iterable[int]) -> str:
    """That one branch decides by what another one measured; "" where no step has such a test."""
    reusing = [c for c, column in enumerate(program.columns) if column.reuses_cond_diff]
    ops = (program.steps[step][c] for step in steps for c in reusing)
    if not any(op and op.adaptive for op in ops):
        return ""
    return (
        "uncond takes the residual diff that cond measured in the same step, where there is one "
        "(cfg_diff_compute_separate)"
    )


def computed_steps(estimate: Estimate, steps: int) -> str:
    low, high = estimate.min_computed_steps, estimate.max_computed_steps
    return f"{low} of {steps} steps" if low == high else f"{low} to {high} of {steps} steps"


def rule_in_words(rule: AdaptiveRule) -> str:
    """The runtime test of an adaptive op, in the key names of the YAML."""
    limits = []
    if rule.max_continuous_cached_steps is not None:
        limits.append(f"max_continuous_cached_steps {rule.max_continuous_cached_steps} in a row")
    if rule.max_cached_steps is not None:
        limits.append(f"max_cached_steps {rule.max_cached_steps} in all")
    if rule.max_accumulated_residual_diff_threshold is not None:
        limits.append(
            "an accumulated diff of max_accumulated_residual_diff_threshold "
            f"{rule.max_accumulated_residual_diff_threshold:g}"
        )
    test = (
        "an adaptive step is cached while its residual diff is below "
        f"residual_diff_threshold {rule.residual_diff_threshold:g}"
    )
    return f"{test}, up to {' and '.join(limits)}" if limits else f"{test}, without a limit"


def layers_in_words(layers: Iterable[tuple[str, str, int, str]]) -> list[str]:
    """What became of layers, from component, name, count, and type or reason to have none."""
    found: dict[tuple[str, str], list[str]] = {}
    for component, name, count, what in layers:
        found.setdefault((component, what), []).append(f"{name} ({count})")
    return [
        f"{component}, {what}: {', '.join(names)}" for (component, what), names in found.items()
    ]


def _about(label: str, text: str) -> str:
    return f"{label}: {text}" if label else text


def _blocks(program: Program, index: int) -> str:
    if not may_cache(program, index):
        return ""
    column = program.columns[index]
    total = program.model.target(column.target).num_blocks(column.block_lists)
    return (
        f"a cached step still computes the first {column.fn_compute_blocks} and the last "
        f"{column.bn_compute_blocks} of {total} blocks (Fn_compute_blocks, Bn_compute_blocks)"
    )


def _calibrator(program: Program, index: int) -> str:
    calibrator = program.columns[index].calibrator
    if calibrator is None or not may_cache(program, index):
        return ""
    what = "residual" if calibrator.cache_type is CacheType.RESIDUAL else "hidden states"
    also = ", and the encoder's" if calibrator.encoder else ""
    match calibrator.forecast:
        case TaylorSeer(order):
            return f"TaylorSeer of order {order} predicts the {what}{also}"
        case FoCa():
            return f"FoCa predicts the {what}{also}"
        case Dmd(history, rank):
            modes = f"{rank} modes" if rank else "as many modes as matter"
            return f"DMD over {history} computed steps, {modes}, predicts the {what}{also}"
        case None:
            return f"none, the last {what} is reused{also}"


def _topology(topology: Topology) -> str:
    axes = [
        f"{name} {size}"
        for name, size in (
            ("guidance_size", topology.guidance_size),
            ("ring_size", topology.ring_size),
            ("ulysses_size", topology.ulysses_size),
            ("tp_size", topology.tp_size),
        )
        if size > 1
    ]
    flags = [
        name
        for name, on in (
            ("ulysses_anything", topology.ulysses_anything),
            ("ulysses_float8", topology.ulysses_float8),
            ("ulysses_async", topology.ulysses_async),
        )
        if on
    ]
    extra = topology.extra_parallel_modules
    shared = [f"extra_parallel_modules {', '.join(extra)}"] if extra else []
    mesh = [" x ".join(axes)] if axes else []
    return f"{topology.world_size} ranks: " + ", ".join([*mesh, *flags, *shared])


def _quantization(placement: Placement) -> Iterator[str]:
    """One sentence for each component that is quantized, and for each rule on top."""
    components = placement.components or (
        (ComponentQuantization("", placement.quant_type, placement.exclude_layers),)
        if placement.quant_type
        else ()
    )
    for component in components:
        excluded = ", ".join(component.exclude_layers)
        yield (
            (f"{component.name}: " if component.name else "")
            + f"quant_type {component.quant_type}"
            + (f", exclude_layers {excluded}" if excluded else "")
        )
    for rule in placement.precision:
        yield f"precision_plan: layers with {rule.part!r} are {rule.quant_type}"
