"""The program as the engine runs it: what every column does in every step."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

NATIVE = "native"
"""The attention of a plan that names none: PyTorch's own."""


class Branch(Enum):
    """One forward of a target within a step."""

    COND = "cond"
    UNCOND = "uncond"


class OpKind(Enum):
    FULL = "FULL"
    CACHED = "CACHED"
    ADAPTIVE = "ADAPTIVE"


class CacheType(Enum):
    """What of the skipped blocks is stored."""

    RESIDUAL = "residual"
    HIDDEN_STATES = "hidden_states"


@dataclass(frozen=True, slots=True)
class AdaptiveRule:
    """The DBCache test; a limit of None does not exist."""

    residual_diff_threshold: float
    max_cached_steps: int | None = None
    max_continuous_cached_steps: int | None = None
    max_accumulated_residual_diff_threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Op:
    """What one column does in one step; ``adaptive`` exactly on ADAPTIVE ops."""

    kind: OpKind
    adaptive: AdaptiveRule | None = None
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class TaylorSeer:
    """The TaylorSeer forecast; order 0 reuses the last value."""

    order: int


@dataclass(frozen=True, slots=True)
class FoCa:
    """The FoCa forecast, which has nothing to set."""


@dataclass(frozen=True, slots=True)
class Dmd:
    """The forecast by dynamic mode decomposition; ``rank`` 0 follows the singular values."""

    history: int = 6
    rank: int = 0
    ridge: float = 1e-8
    svd_precision: str = "medium"


@dataclass(frozen=True, slots=True)
class Calibrator:
    """How a cached step predicts what it skips; without a ``forecast`` it reuses the last value."""

    cache_type: CacheType = CacheType.RESIDUAL
    forecast: TaylorSeer | FoCa | Dmd | None = None
    encoder: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A block group of a target under one branch: computed or cached as a whole.

    ``reuses_cond_diff``: its test takes the residual diff that the conditional branch measured in
    the same step, where there is one.
    """

    target: str
    branch: Branch
    block_lists: tuple[str, ...]
    fn_compute_blocks: int = 0
    bn_compute_blocks: int = 0
    calibrator: Calibrator | None = None
    reuses_cond_diff: bool = False


@dataclass(frozen=True, slots=True)
class Topology:
    """The mesh of ranks, row-major in the order guidance, ring, ulysses, tp.

    ``guidance_size`` 2: each half of the ranks runs one of the two forwards of a step.
    """

    world_size: int = 1
    ring_size: int = 1
    ulysses_size: int = 1
    tp_size: int = 1
    ulysses_anything: bool = False
    ulysses_float8: bool = False
    ulysses_async: bool = False
    ring_rotate_method: str = "p2p"
    ring_convert_to_fp32: bool = True
    extra_parallel_modules: tuple[str, ...] = ()
    guidance_size: int = 1


@dataclass(frozen=True, slots=True)
class Program:
    """``steps[i][c]``: what column ``c`` does in step ``i``, None where it does not run.

    ``attention_backend``: as diffusers' dispatcher names it.
    """

    columns: tuple[Column, ...]
    steps: tuple[tuple[Op | None, ...], ...]
    topology: Topology = Topology()
    attention_backend: str = NATIVE


@dataclass(frozen=True, slots=True)
class OpOutcome:
    """``kind`` is FULL or CACHED; ``residual_diff`` where the DBCache test was evaluated."""

    kind: OpKind
    residual_diff: float | None = None


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What one step did: one entry per column, None where it did not run."""

    step: int
    ops: tuple[OpOutcome | None, ...]
    milliseconds: float
