"""The attention backend of a run, and whether the model and the mesh can have it."""

from __future__ import annotations

from planner.compile.plan import Topology
from planner.config.acceleration import AccelerationConfig
from planner.config.attention import (
    REFUSES_MASKS,
    SHARES_MASKS,
    SHARES_MASKS_BY_ULYSSES_ONLY,
)
from planner.config.document import Path
from planner.diagnostics import Severity
from planner.models.facts import ModelFacts

_KEY = "attention_backend"
# Their transformers mask the padding of the prompt.
_MASKED_FAMILIES = ("hunyuan_video", "hunyuan_video_15", "ltx")


def resolve_attention_backend(
    config: AccelerationConfig, model: ModelFacts, topology: Topology
) -> str:
    """Its name, empty for the model's own. Faults are reported to the config."""
    inner = config.parallelism.attention_backend if config.parallelism else None
    if inner and config.attention_backend and inner != config.attention_backend:
        config.report(
            Severity.WARNING,
            "two-attention-backends",
            (_KEY,),
            f"parallelism_config.attention_backend {inner} wins over {config.attention_backend}",
            f"attention_backend: {inner}",
        )
    backend = inner or config.attention_backend
    if backend:
        path: Path = ("parallelism_config", _KEY) if inner else (_KEY,)
        _check_masks(config, path, backend, model, topology)
        return backend
    # Split sequences need a backend that is known to take part in the exchange.
    return "native" if topology.ulysses_size * topology.ring_size > 1 else ""


def _check_masks(
    config: AccelerationConfig, path: Path, backend: str, model: ModelFacts, topology: Topology
) -> None:
    """A backend that cannot mask would fail in the first forward."""
    family = model.architecture.family
    if family not in _MASKED_FAMILIES:
        return
    if backend in REFUSES_MASKS:
        where = "which"
    elif topology.ring_size > 1 and backend in SHARES_MASKS_BY_ULYSSES_ONLY:
        where = f"which with ring_size {topology.ring_size}"
    elif topology.ring_size * topology.ulysses_size > 1 and backend not in SHARES_MASKS:
        where = "which on a sequence that ranks share"
    else:
        return
    config.report(
        Severity.ERROR,
        "masked-attention",
        path,
        f"{family} masks its prompt, {where} {backend} cannot do",
        f"{_KEY}: native",
    )
