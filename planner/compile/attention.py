"""The attention backend of a run, and whether the model and the mesh can have it."""

from __future__ import annotations

from planner.compile.plan import Topology
from planner.config.acceleration import AccelerationConfig
from planner.config.attention import MERGES_PARTS, REFUSES_MASKS
from planner.config.document import Path
from planner.diagnostics import Severity
from planner.models.facts import ModelFacts

_KEY = "attention_backend"
# Their transformers mask the padding of the prompt.
_MASKED_FAMILIES = ("hunyuan_video", "hunyuan_video_15", "ltx")


def resolve_attention_backend(
    config: AccelerationConfig, model: ModelFacts, topology: Topology, *, rows: int = 1
) -> str:
    """Its name, empty for the model's own. Faults are reported to the config.

    ``rows``: prompts that one forward has, which differ in length.
    """
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
        _check_masks(config, path, backend, model, rows)
        _check_ring(config, path, backend, topology)
        return backend
    # Split sequences need a backend that is known to take part in the exchange.
    return "native" if topology.ulysses_size * topology.ring_size > 1 else ""


def _check_masks(
    config: AccelerationConfig, path: Path, backend: str, model: ModelFacts, rows: int
) -> None:
    """A backend that cannot mask would fail in the first forward."""
    family = model.architecture.family
    if backend in REFUSES_MASKS and (family in _MASKED_FAMILIES or rows > 1):
        config.report(
            Severity.ERROR,
            "masked-attention",
            path,
            f"{family} masks its prompt{'s' if rows > 1 else ''}, which {backend} cannot do",
            f"{_KEY}: native",
        )


def _check_ring(config: AccelerationConfig, path: Path, backend: str, topology: Topology) -> None:
    method = topology.ring_rotate_method
    if topology.ring_size > 1 and method == "p2p" and backend not in MERGES_PARTS:
        config.report(
            Severity.ERROR,
            "unmerged-attention",
            path,
            f"ring_rotate_method: {method} merges partial results, which {backend} does not give",
            f"ring_rotate_method: allgather, or {_KEY}: native",
        )
