"""Parallel sizes: what ``auto`` stands for and whether the sizes cover the ranks."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from planner.compile.mesh_checks import check_heads, refuse_halves
from planner.compile.plan import Topology
from planner.config.acceleration import AccelerationConfig
from planner.config.schema import ParallelismConfig
from planner.diagnostics import Severity
from planner.models.components import components_of
from planner.models.facts import ModelFacts
from planner.models.guidance import GuidanceKind

_SECTION = "parallelism_config"
_ASYNC_FAMILIES = {
    "flux": "FLUX.1",
    "flux2": "FLUX.2",
    "qwen_image": "Qwen-Image",
    "z_image": "Z-Image",
}
_ULYSSES_FLAGS = ("ulysses_anything", "ulysses_float8", "ulysses_async")
_BACKENDS = {"native_diffuser": "cache_dit"}
_ONE_FORWARD = {
    GuidanceKind.NONE: "runs without guidance",
    GuidanceKind.EMBEDDED: "takes the guidance scale as an input",
    GuidanceKind.BATCHED: "is guided in one forward of twice the batch",
}


def resolve_topology(
    config: AccelerationConfig, model: ModelFacts, world_size: int | None
) -> Topology:
    """The mesh of a run; faults are reported to the config, with a one-rank mesh as the result."""
    parallelism = config.parallelism
    if parallelism is None:
        if world_size not in (None, 1):
            config.report(
                Severity.ERROR,
                "idle-ranks",
                (_SECTION,),
                f"{world_size} ranks, but the config does not say how they share the work",
                "parallelism_config: {ulysses_size: auto}",
            )
        return Topology()
    sizes = _resolve_sizes(config, parallelism, world_size)
    if sizes is None:
        return Topology()
    guidance, ring, ulysses, tp = sizes
    _check_backend(config, parallelism, shares_sequence=ulysses * ring > 1, tp=tp)
    _check_flags(config, parallelism, model, ulysses=ulysses, ring=ring)
    check_heads(config, parallelism, model, ulysses=ulysses, tp=tp)
    if guidance > 1 and model.guidance.kind is not GuidanceKind.SEPARATE:
        refuse_halves(config, f"this model {_ONE_FORWARD[model.guidance.kind]}")
    mesh = Topology(
        world_size=prod(sizes),
        guidance_size=guidance,
        ring_size=ring,
        ulysses_size=ulysses,
        tp_size=tp,
        extra_parallel_modules=_extra_modules(config, parallelism, model),
    )
    # What the mesh has no use for is no part of the plan.
    if ulysses > 1:
        mesh = replace(mesh, **{flag: getattr(parallelism, flag) for flag in _ULYSSES_FLAGS})
    if ring > 1:
        mesh = replace(
            mesh,
            ring_rotate_method=parallelism.ring_rotate_method,
            ring_convert_to_fp32=parallelism.ring_convert_to_fp32,
        )
    return mesh


def _resolve_sizes(
    config: AccelerationConfig, parallelism: ParallelismConfig, world_size: int | None
) -> tuple[int, int, int, int] | None:
    """(guidance, ring, ulysses, tp), or None after a fault."""
    given = {
        "guidance_size": parallelism.guidance_size,
        "ring_size": parallelism.ring_size,
        "ulysses_size": parallelism.ulysses_size,
        "tp_size": parallelism.tp_size,
    }
    sizes = {key: size if isinstance(size, int) else 1 for key, size in given.items()}
    auto = [key for key, size in given.items() if size == "auto"]
    product = prod(sizes.values())
    # Whoever does not know the key need not read of it.
    halves = 0 if parallelism.guidance_size > 1 else 1
    if len(auto) > 1:
        config.report(
            Severity.ERROR,
            "several-auto-sizes",
            (_SECTION, auto[1]),
            f"only one size can be auto, not both {auto[0]} and {auto[1]}",
            f"{auto[1]}: 1",
        )
        return None
    if auto:
        key = auto[0]
        if world_size is None:
            config.report(
                Severity.ERROR,
                "world-size-unknown",
                (_SECTION, key),
                f"{key}: auto follows from the number of ranks, which is not given",
                "say how many there are, e.g. --num-gpus 4",
            )
            return None
        if world_size % product:
            config.report(
                Severity.ERROR,
                "sizes-do-not-cover",
                (_SECTION, key),
                f"the other sizes multiply to {product}, which does not divide {world_size} ranks",
                f"use a multiple of {product} ranks",
            )
            return None
        sizes[key] = world_size // product
    elif world_size is not None and product != world_size:
        config.report(
            Severity.ERROR,
            "sizes-do-not-cover",
            (_SECTION,),
            f"{' x '.join(list(sizes)[halves:])} is {product}, but there are {world_size} ranks",
            f"use {product} ranks, or sizes that multiply to {world_size}, e.g. ulysses_size: auto",
            at_key=True,
        )
        return None
    if prod(sizes.values()) == 1:
        config.report(
            Severity.ERROR,
            "no-parallelism",
            (_SECTION,),
            "no parallelism is enabled: every size is 1",
            "remove parallelism_config, or use more ranks",
            at_key=True,
        )
        return None
    guidance, ring, ulysses, tp = sizes.values()
    return guidance, ring, ulysses, tp


def _check_backend(
    config: AccelerationConfig, parallelism: ParallelismConfig, *, shares_sequence: bool, tp: int
) -> None:
    """Cache-DiT asserts that a backend is the one that the sizes make."""
    backend = _BACKENDS.get(parallelism.backend, parallelism.backend)
    resolved = "cache_dit" if shares_sequence else "native_pytorch" if tp > 1 else "auto"
    if shares_sequence and tp > 1:
        resolved = "native_hybrid"
    if backend not in ("auto", resolved):
        config.report(
            Severity.ERROR,
            "other-backend",
            (_SECTION, "backend"),
            f"these sizes make backend {resolved}, not {parallelism.backend}",
            "backend: auto",
        )


def _extra_modules(
    config: AccelerationConfig, parallelism: ParallelismConfig, model: ModelFacts
) -> tuple[str, ...]:
    held = components_of(model.architecture.pipeline_class)
    for i, name in enumerate(parallelism.extra_parallel_modules):
        if name not in held:
            config.report(
                Severity.WARNING,
                "no-such-module",
                (_SECTION, "extra_parallel_modules", i),
                f"this model has no {name}: there is nothing to share",
                f"extra_parallel_modules: [{', '.join(held)}]",
            )
    return tuple(sorted(set(parallelism.extra_parallel_modules) & set(held)))


def _check_flags(
    config: AccelerationConfig,
    parallelism: ParallelismConfig,
    model: ModelFacts,
    *,
    ulysses: int,
    ring: int,
) -> None:
    for flag in _ULYSSES_FLAGS:
        if getattr(parallelism, flag) and ulysses == 1:
            config.report(
                # Cache-DiT refuses it in a ring and ignores it with tensor parallelism alone.
                Severity.ERROR if ring > 1 else Severity.WARNING,
                "flag-without-ulysses",
                (_SECTION, flag),
                f"{flag} needs a ulysses_size of at least 2",
                f"{flag}: false",
            )
    if ring == 1 and parallelism.ring_rotate_method != "p2p":
        config.report(
            Severity.HINT,
            "without-effect",
            (_SECTION, "ring_rotate_method"),
            "ring_rotate_method has no effect without a ring_size of at least 2",
        )
    family = model.architecture.family
    if ulysses > 1 and parallelism.ulysses_async and family not in _ASYNC_FAMILIES:
        config.report(
            Severity.HINT,
            "async-family",
            (_SECTION, "ulysses_async"),
            f"Cache-DiT has ulysses_async for {', '.join(_ASYNC_FAMILIES.values())} and refuses it "
            f"for {family}; here it works for every family",
        )
    if parallelism.ulysses_anything and ring > 1:
        config.report(
            Severity.ERROR,
            "anything-with-ring",
            (_SECTION, "ulysses_anything"),
            f"ulysses_anything does not go with ring_size {ring}",
            "ring_size: 1",
        )
