"""One forward of a block group: what its op makes of the streams on their way through."""

from __future__ import annotations

from executor.engine.arena import ColumnState
from executor.engine.families import Streams
from executor.engine.program import Op, OpKind, OpOutcome


class Forward:
    """Follows the streams past three points of the group: its entry, the end of the first blocks
    (where the op is decided) and the end of the middle blocks (where the cache is read or written).
    """

    def __init__(self, state: ColumnState, step: int, op: Op) -> None:
        self._state = state
        self._step = step
        self._op = op
        self._before: Streams | None = None
        self.outcome: OpOutcome | None = None
        if op.refresh:
            state.refresh()
        state.begin()

    @property
    def skips(self) -> bool:
        """Whether the middle blocks are taken from the cache; known once the op is decided."""
        return self.outcome is not None and self.outcome.kind is OpKind.CACHED

    def enter(self, streams: Streams) -> None:
        self._before = streams

    def decide(self, streams: Streams) -> None:
        assert self._before is not None
        self.outcome = self._state.decide(self._step, self._op, self._before[0], streams[0])
        # Held no longer than needed: the blocks free what they no longer read.
        self._before = streams if self._state.stores(self._step) and not self.skips else None

    def join(self, streams: Streams) -> Streams:
        if self.skips:
            return self._state.apply(streams)
        if self._before is not None:
            self._state.store(self._before, streams)
            self._before = None
        return streams
