"""One forward of a block group: what its op makes of the streams on their way through."""

from __future__ import annotations

from torch import Tensor

from executor.engine.arena import ColumnState
from executor.engine.families import Streams
from executor.engine.program import Op, OpKind, OpOutcome


class Forward:
    """Follows the streams past three points of the group: its entry, the end of the first blocks
    (where the op is decided) and the end of the middle blocks.

    ``is_watched``: whether it has to look at them at all, which it has not where everything is
    computed and no later op reads what it was. ``predicted``: once decided, the streams behind the
    middle blocks where those are skipped.
    """

    def __init__(self, state: ColumnState, step: int, op: Op, *, has_middle: bool) -> None:
        self._state = state
        self._step = step
        self._op = op
        self._has_middle = has_middle
        self._entered: Tensor | None = None
        self._decided: Streams | None = None
        self.predicted: Streams | None = None
        self.outcome: OpOutcome | None = None
        self.is_watched = op.kind is not OpKind.FULL or state.is_read_after(step)
        if not self.is_watched:
            self.outcome = OpOutcome(OpKind.FULL)
            return
        if op.refresh:
            state.refresh()
        state.begin()

    def enter(self, streams: Streams) -> None:
        self._entered = streams[0]

    def decide(self, streams: Streams) -> None:
        assert self._entered is not None
        self.outcome = self._state.decide(self._step, self._op, self._entered, streams[0])
        # Tensors are held no longer than needed: the blocks free what they no longer read.
        self._entered = None
        if not self._has_middle:
            return
        if self.outcome.kind is OpKind.CACHED:
            self.predicted = self._state.apply(streams)
        elif self._state.stores(self._step):
            self._decided = streams

    def join(self, streams: Streams) -> None:
        if self._decided is not None:
            self._state.store(self._decided, streams)
            self._decided = None
