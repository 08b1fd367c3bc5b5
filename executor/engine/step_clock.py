"""Times the steps of a run by the device that computes them, without holding it up."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch

from executor.engine.program import OpOutcome, StepOutcome

_Ops = tuple[OpOutcome | None, ...]


class StepClock:
    """Tells steps in order, each as soon as the device has done it.

    A CUDA device computes while the host queues the next step. So that it never runs dry, a step
    is waited for only once the following one is queued: it is told one step late, and a cancelled
    run has at most one more step queued. A CPU has done every step when it ends.
    """

    def __init__(self, device: torch.device) -> None:
        self._queues = device.type == "cuda"
        self._pending: deque[tuple[int, _Ops, Any]] = deque()
        self._before: Any = None

    def begin(self) -> None:
        """Before the first forward; encoding the prompt is not the first step's time."""
        if self._before is None:
            self._before = self._mark()

    def end_step(self, step: int, ops: _Ops) -> Iterator[StepOutcome]:
        """Takes in a step that the host has queued and gives those that are done."""
        self._pending.append((step, ops, self._mark()))
        yield from self._done(keep=1 if self._queues else 0)

    def finish(self) -> Iterator[StepOutcome]:
        """The steps that have not been told yet."""
        return self._done(keep=0)

    def _done(self, *, keep: int) -> Iterator[StepOutcome]:
        while len(self._pending) > keep:
            step, ops, mark = self._pending.popleft()
            yield StepOutcome(step, ops, self._milliseconds(self._before, mark))
            self._before = mark

    def _mark(self) -> Any:
        if not self._queues:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _milliseconds(self, before: Any, after: Any) -> float:
        if not self._queues:
            return float(after - before) * 1e3
        after.synchronize()
        return float(before.elapsed_time(after))
