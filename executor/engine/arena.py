"""The cache state of one run. It lives in the arena, and dies with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from torch import Tensor

from executor.engine import program
from executor.engine.dmd import Dmd
from executor.engine.families import Streams
from executor.engine.forecasts import FoCa, Forecast, Reuse, TaylorSeer
from executor.engine.program import (
    AdaptiveRule,
    Branch,
    CacheType,
    Calibrator,
    Column,
    Op,
    OpKind,
    OpOutcome,
    Program,
)
from executor.engine.sharing import Sharing


class Arena:
    """The state of every column of a program, or of this rank's share of it."""

    def __init__(self, program: Program, sharing: Sharing | None = None) -> None:
        self.columns = tuple(
            ColumnState(column, [step[c] for step in program.steps], sharing)
            for c, column in enumerate(program.columns)
        )
        for column, state in zip(program.columns, self.columns, strict=True):
            if column.reuses_cond_diff:
                conditional = replace(column, branch=Branch.COND, reuses_cond_diff=False)
                state.measured_by = self.columns[program.columns.index(conditional)]

    @property
    def bytes(self) -> int:
        """What is held now."""
        return _bytes(tensor for column in self.columns for tensor in column.held())

    @property
    def peak_bytes(self) -> tuple[int, ...]:
        """The most that each column has held at the end of a forward."""
        return tuple(column.peak_bytes for column in self.columns)


class ColumnState:
    """Buffers and counters of one column: what its ops read and write.

    Every tensor has the shape and dtype of the model's hidden (or encoder) stream. Nothing is
    stored that no later op of the column could read.
    """

    def __init__(self, column: Column, ops: list[Op | None], sharing: Sharing | None) -> None:
        self._sharing = sharing
        self._calibrator = column.calibrator or Calibrator()
        kinds = [(step, op.kind) for step, op in enumerate(ops) if op is not None]
        self._last_test = max((s for s, kind in kinds if kind is OpKind.ADAPTIVE), default=-1)
        self._last_cached = max((s for s, kind in kinds if kind is not OpKind.FULL), default=-1)
        # Another column, whose residual diff this one takes for its own.
        self.measured_by: ColumnState | None = None
        self.peak_bytes = 0
        self.refresh()

    def refresh(self) -> None:
        """Forgets everything."""
        self._reference: Tensor | None = None
        self._reference_mean: Tensor | None = None
        # By stream: hidden, encoder.
        self._forecasts: tuple[Forecast, Forecast] = (
            _forecast(self._calibrator),
            _forecast(self._calibrator if self._calibrator.encoder else Calibrator()),
        )
        self._cached_steps = 0
        self._streak = 0
        self._accumulated = 0.0
        self._measured: tuple[int, float] | None = None

    def is_read_after(self, step: int) -> bool:
        """Whether a later op reads anything of what the column holds."""
        return step < self._last_test or self.stores(step)

    def begin(self) -> None:
        """To be called once a forward, before anything else."""
        for forecast in self._forecasts:
            forecast.tick()

    def decide(self, step: int, op: Op, before: Tensor, after: Tensor) -> OpOutcome:
        """What the op does, given the hidden stream before and after the first blocks."""
        keep = step < self._last_test
        change = after - before if keep or op.adaptive is not None else None
        kind, diff = op.kind, None
        if op.adaptive is not None:
            assert change is not None
            kind, diff = self._test(step, op.adaptive, change)
        if kind is OpKind.CACHED:
            self._streak += 1
            self._cached_steps += 1
        else:
            self._streak = 0
            if keep:
                self._reference, self._reference_mean = change, None
                self._weigh()
        return OpOutcome(kind, diff)

    def _test(self, step: int, rule: AdaptiveRule, change: Tensor) -> tuple[OpKind, float | None]:
        """The DBCache test (semantics of Cache-DiT).

        The residual diff is the relative L1 change of what the first blocks add, against the last
        computed step, in the dtype of the model. Reading it is the one host synchronisation.
        """
        if (
            _reached(self._cached_steps, rule.max_cached_steps)
            or _reached(self._streak, rule.max_continuous_cached_steps)
            or _reached(self._accumulated, rule.max_accumulated_residual_diff_threshold)
            or self._reference is None
        ):
            return OpKind.FULL, None
        if rule.residual_diff_threshold >= 1:
            return OpKind.CACHED, None
        measured = (self.measured_by or self)._measured
        if measured is not None and measured[0] == step:
            diff = measured[1]
        else:
            diff = self._residual_diff(self._reference, change)
        self._measured = (step, diff)
        if diff > 0:
            self._accumulated += diff
        return (OpKind.CACHED if diff < rule.residual_diff_threshold else OpKind.FULL), diff

    def _residual_diff(self, reference: Tensor, change: Tensor) -> float:
        if self._sharing is not None:
            return self._sharing.residual_diff(reference, change)
        if self._reference_mean is None:
            # Not before the first test: a step that is computed anyway takes no mean.
            self._reference_mean = reference.abs().mean()
            self._weigh()
        return float((reference - change).abs_().mean() / self._reference_mean)

    def stores(self, step: int) -> bool:
        """Whether a later step may reuse what this one computes."""
        return step < self._last_cached

    def store(self, before: Streams, after: Streams) -> None:
        """Remembers what the middle blocks made of the streams."""
        residual = self._calibrator.cache_type is CacheType.RESIDUAL
        for forecast, old, new in zip(self._forecasts, before, after, strict=False):
            forecast.update(new - old if residual else _compact(new))
        self._weigh()

    def apply(self, streams: Streams) -> Streams:
        """The streams as the skipped middle blocks would have left them."""
        residual = self._calibrator.cache_type is CacheType.RESIDUAL
        predicted = [
            forecast.predict() + stream if residual else forecast.predict()
            for forecast, stream in zip(self._forecasts, streams, strict=False)
        ]
        if self._forecasts[0].predict_stores:
            self._weigh()
        return tuple(stream.contiguous() for stream in predicted)

    def held(self) -> Iterator[Tensor]:
        """Every tensor that outlives a forward."""
        for tensor in (self._reference, self._reference_mean):
            if tensor is not None:
                yield tensor
        for forecast in self._forecasts:
            yield from forecast.held()

    def _weigh(self) -> None:
        self.peak_bytes = max(self.peak_bytes, _bytes(self.held()))


def _forecast(calibrator: Calibrator) -> Forecast:
    match calibrator.forecast:
        case program.TaylorSeer(order):
            return TaylorSeer(order)
        case program.FoCa():
            return FoCa()
        case program.Dmd() as settings:
            return Dmd(settings)
        case None:
            return Reuse()


def _compact(value: Tensor) -> Tensor:
    """The value without the rest of the tensor that it may be a part of."""
    return value if value.untyped_storage().nbytes() == value.nbytes else value.clone()


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Memory behind tensors; what several of them share counts once."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _reached(value: float, limit: float | None) -> bool:
    return limit is not None and value >= limit
