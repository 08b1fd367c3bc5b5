"""Whether model, request and columns fit the mesh of ranks that a config makes."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from planner.compile.plan import Column, Op, Topology
from planner.compile.request import Request
from planner.config.acceleration import AccelerationConfig
from planner.config.schema import ParallelismConfig
from planner.diagnostics import Severity
from planner.models.facts import ModelFacts, Target
from planner.models.guidance import GuidanceKind, NegativePrompt
from planner.models.layers import Shape, Split

_SECTION = "parallelism_config"
# Their ranks share the prompt's tokens too, and its length is always the same.
_SHARED_PROMPTS = ("flux", "flux2")


def check_heads(
    config: AccelerationConfig,
    parallelism: ParallelismConfig,
    model: ModelFacts,
    *,
    ulysses: int,
    tp: int,
) -> None:
    """Reports attention heads and inputs of layers that the ranks cannot share."""
    for target in model.architecture.targets:
        heads, shape = target.num_attention_heads, model.shape(target.name)
        inputs = {} if shape is None else _split_inputs(target, shape)
        sizes = f"sizes that divide: {_divisors(gcd(heads, *inputs.values()))}"
        if heads % tp:
            config.report(
                Severity.ERROR,
                "heads-do-not-divide",
                (_SECTION, "tp_size"),
                f"the {heads} attention heads of {target.name} do not divide by tp_size {tp}",
                sizes,
            )
        elif any(count % tp for count in inputs.values()):
            name, count = next((n, count) for n, count in inputs.items() if count % tp)
            config.report(
                Severity.ERROR,
                "width-does-not-divide",
                (_SECTION, "tp_size"),
                f"the {count} inputs of {name} in {target.name} do not divide by tp_size {tp}",
                sizes,
            )
        elif heads % (ulysses * tp) and not parallelism.ulysses_anything:
            config.report(
                Severity.ERROR,
                "heads-do-not-divide",
                (_SECTION, "ulysses_size"),
                f"the {heads} attention heads of {target.name} do not divide by "
                f"ulysses_size {ulysses} x tp_size {tp}",
                "ulysses_anything: true",
            )


def check_sequence(
    config: AccelerationConfig, model: ModelFacts, topology: Topology, request: Request
) -> None:
    """Reports image tokens that the ranks cannot share evenly, unless they need not."""
    ranks = topology.ring_size * topology.ulysses_size
    if ranks == 1 or topology.ulysses_anything or model.sequence is None:
        return
    assert request.height is not None
    assert request.width is not None
    tokens = model.sequence.counts(request.height, request.width, request.num_frames)
    if model.architecture.family in _SHARED_PROMPTS and tokens.text % ranks:
        config.report(
            Severity.ERROR,
            "sequence-does-not-divide",
            (_SECTION,),
            f"the {tokens.text} tokens of the prompt do not divide by "
            f"ring_size {topology.ring_size} x ulysses_size {topology.ulysses_size}",
            "ulysses_anything: true" if topology.ring_size == 1 else "",
            at_key=True,
        )
    if tokens.image % ranks:
        anything = "ulysses_anything: true, or another size" if topology.ring_size == 1 else ""
        config.report(
            Severity.ERROR,
            "sequence-does-not-divide",
            (_SECTION,),
            f"the {tokens.image} image tokens of {request.width} x {request.height} pixels do not "
            f"divide by ring_size {topology.ring_size} x ulysses_size {topology.ulysses_size}",
            anything or "another height or width",
            at_key=True,
        )


def check_guidance(
    config: AccelerationConfig, model: ModelFacts, topology: Topology, request: Request
) -> None:
    """Reports halves of the ranks where the request has one forward a step for both."""
    guidance = model.guidance
    # Of other models the topology is refused already.
    if topology.guidance_size == 1 or guidance.kind is not GuidanceKind.SEPARATE:
        return
    if guidance.is_on(request.guidance_scale, negative_prompt=request.negative_prompt):
        return
    needed = f"a guidance_scale above {guidance.threshold:g}"
    if guidance.negative_prompt is NegativePrompt.REQUIRED:
        needed += " and a negative prompt"
    refuse_halves(config, "this request has no guidance", f"{needed}, or guidance_size: 1")


def check_diffs(
    config: AccelerationConfig,
    topology: Topology,
    columns: Sequence[Column],
    steps: Sequence[Sequence[Op | None]],
) -> None:
    """Reports tests of one branch that take what the other one, on other ranks, measures."""
    if topology.guidance_size > 1 and waiting_column(columns, steps) is not None:
        config.report(
            Severity.ERROR,
            "diff-of-other-ranks",
            ("cache_config", "cfg_diff_compute_separate"),
            "with guidance_size 2 both branches run at once: neither can take the residual diff "
            "of the other",
            "cfg_diff_compute_separate: true",
        )


def waiting_column(columns: Sequence[Column], steps: Sequence[Sequence[Op | None]]) -> int | None:
    """The first column that decides by what another branch measures in the same step."""
    for c, column in enumerate(columns):
        if column.reuses_cond_diff and any(op and op.adaptive for op in (s[c] for s in steps)):
            return c
    return None


def refuse_halves(config: AccelerationConfig, why: str, hint: str = "guidance_size: 1") -> None:
    """Reports that there are no two forwards for two halves of the ranks to run."""
    config.report(
        Severity.ERROR,
        "one-forward",
        (_SECTION, "guidance_size"),
        f"guidance_size 2 runs two forwards of a step at once, but {why}: there is only one",
        hint,
    )


def _split_inputs(target: Target, shape: Shape) -> dict[str, int]:
    """Inputs of the layers of blocks that are split by them.

    Where heads divide, so does their part of the inputs, and norms across heads do as well.
    """
    return {
        f"{listed.name}.*.{linear.name}": linear.inputs
        for listed, block in zip(target.block_lists, shape.blocks, strict=True)
        for linear in block.linears
        if linear.split is Split.ROWS
    }


def _divisors(number: int) -> str:
    return ", ".join(str(d) for d in range(1, number + 1) if number % d == 0)
