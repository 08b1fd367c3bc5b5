"""The plan as the compiler makes it: immutable values, no protobuf, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from planner.compile.cost import Cost
from planner.models.facts import Architecture


class Branch(Enum):
    """One forward of a target within a step."""

    COND = "cond"
    UNCOND = "uncond"


class OpKind(Enum):
    FULL = "FULL"
    CACHED = "CACHED"
    ADAPTIVE = "ADAPTIVE"


class Reason(Enum):
    """Why an op has its kind."""

    NO_CACHE = "NO_CACHE"
    WARMUP = "WARMUP"
    SCM_COMPUTE = "SCM_COMPUTE"
    SCM_CACHE = "SCM_CACHE"
    DBCACHE = "DBCACHE"
    CACHED_STEPS_EXHAUSTED = "CACHED_STEPS_EXHAUSTED"
    CONTINUOUS_CACHED_STEPS_EXHAUSTED = "CONTINUOUS_CACHED_STEPS_EXHAUSTED"
    THRESHOLD_NEVER = "THRESHOLD_NEVER"
    THRESHOLD_ALWAYS = "THRESHOLD_ALWAYS"
    NO_REFERENCE = "NO_REFERENCE"
    REPLAY = "REPLAY"

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    Reason.NO_CACHE: "no cache is configured",
    Reason.WARMUP: "warm-up",
    Reason.SCM_COMPUTE: "the steps computation mask says compute",
    Reason.SCM_CACHE: "the steps computation mask says cache, policy static",
    Reason.DBCACHE: "the residual diff decides at run time",
    Reason.CACHED_STEPS_EXHAUSTED: "max_cached_steps is reached",
    Reason.CONTINUOUS_CACHED_STEPS_EXHAUSTED: "max_continuous_cached_steps is reached",
    Reason.THRESHOLD_NEVER: "residual_diff_threshold <= 0 never caches",
    Reason.THRESHOLD_ALWAYS: "residual_diff_threshold >= 1 always caches",
    Reason.NO_REFERENCE: "nothing is computed yet that could be reused",
    Reason.REPLAY: "decided by an earlier run's record",
}


class CacheType(Enum):
    """What of the skipped blocks is stored."""

    RESIDUAL = "residual"
    HIDDEN_STATES = "hidden_states"


@dataclass(frozen=True, slots=True)
class AdaptiveRule:
    """The DBCache test: cached while the residual diff is below the threshold and no limit is met.

    A limit of None does not exist.
    """

    residual_diff_threshold: float
    max_cached_steps: int | None = None
    max_continuous_cached_steps: int | None = None
    max_accumulated_residual_diff_threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Op:
    """What one column does in one step; ``adaptive`` exactly on ADAPTIVE ops."""

    kind: OpKind
    reason: Reason
    adaptive: AdaptiveRule | None = None
    refresh: bool = False

    def __post_init__(self) -> None:
        if (self.kind is OpKind.ADAPTIVE) != (self.adaptive is not None):
            raise ValueError("an op carries a rule exactly when it is ADAPTIVE")


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
    """How a cached step predicts the output of the blocks it skips.

    Without a ``forecast`` the last value is reused; ``encoder`` is whether the encoder stream is
    forecast too.
    """

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

    @property
    def group(self) -> str:
        """Name of the block group: its lists joined."""
        return "+".join(self.block_lists)


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

    @property
    def branch_ranks(self) -> int:
        """Ranks that share a forward."""
        return self.ring_size * self.ulysses_size * self.tp_size


@dataclass(frozen=True, slots=True)
class ComponentQuantization:
    """How one component of a pipeline is quantized."""

    name: str
    quant_type: str
    exclude_layers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PrecisionRule:
    """Layers whose name contains ``part`` get a type of their own; the longest part decides."""

    part: str
    quant_type: str


@dataclass(frozen=True, slots=True)
class Placement:
    """What is fixed when weights are loaded; ``quant_type`` "" is no quantization.

    ``components`` are those that are quantized, by name; none: every transformer, all alike.
    """

    quant_type: str = ""
    exclude_layers: tuple[str, ...] = ()
    components: tuple[ComponentQuantization, ...] = ()
    precision: tuple[PrecisionRule, ...] = ()

    def of(self, component: str) -> ComponentQuantization | None:
        """How a component is quantized; None: it is not."""
        if self.components:
            return next((each for each in self.components if each.name == component), None)
        if self.quant_type and component.startswith("transformer"):
            return ComponentQuantization(component, self.quant_type, self.exclude_layers)
        return None

    def quant_type_of(self, quantization: ComponentQuantization, layer: str) -> str:
        """The type of a layer that is not excluded."""
        rules = [rule for rule in self.precision if rule.part in layer]
        longest = max(rules, key=lambda rule: len(rule.part), default=None)
        return quantization.quant_type if longest is None else longest.quant_type


@dataclass(frozen=True, slots=True)
class Program:
    """Everything of a plan that changes the result.

    ``steps[i][c]`` is what column ``c`` does in step ``i``, None where it does not run.
    """

    model: Architecture
    columns: tuple[Column, ...]
    steps: tuple[tuple[Op | None, ...], ...]
    topology: Topology = Topology()
    placement: Placement = Placement()
    attention_backend: str = ""

    @property
    def num_inference_steps(self) -> int:
        return len(self.steps)

    def halves(self) -> list[int]:
        """By column, which half of the ranks runs it: of its block group the first or the second;
        all of them are of the first where the ranks are not halved.
        """
        if self.topology.guidance_size == 1:
            return [0] * len(self.columns)
        groups = [(column.target, column.block_lists) for column in self.columns]
        return [groups[:c].count(group) for c, group in enumerate(groups)]

    def by_column(self) -> list[tuple[Op | None, ...]]:
        """What every column does, step by step; columns that do the same share one tuple."""
        columns = list(zip(*self.steps, strict=True))
        return [columns[columns.index(ops)] for ops in columns]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a program should cost.

    A step counts as computed when at least one of its columns computes every block. ``cost`` is
    None for a model whose layers are not known.
    """

    min_computed_steps: int
    max_computed_steps: int
    cost: Cost | None = None
