"""How a run takes part in a model's own loop over its blocks.

While a run is attached, iterating over a block list still gives one callable for each of its
blocks, in order: the block itself nearly everywhere, and a gate around the few blocks at whose
entry or exit the run looks at the streams. Where the middle blocks are skipped, each of them is
stood in for by a callable that returns what the last of them is predicted to return. So a loop
that counts its blocks, or adds a ControlNet's residual after each, finds everything in its place.

Where ranks share the tokens, every block is given its rank's part of what the model hands out, from
the group's first block, where the streams are whole, to its last, behind which they are again.

A forward that other ranks run passes its streams by every block as they are.

Nothing else of the model changes: the list keeps its modules, length, indexing and state dict, no
forward is replaced, no class is patched, and detaching restores the list exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from torch import nn

from executor.engine.families import BlockCall, Streams
from executor.engine.forward import Forward
from executor.engine.sharing import GroupSharing


@dataclass(slots=True)
class Course:
    """The forward that the lists of a group share: its first block opens it.

    ``is_elsewhere``: whether other ranks run it.
    """

    open: Callable[[], Forward]
    is_elsewhere: Callable[[], bool] = lambda: False
    forward: Forward | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """Where the blocks of a group are divided: [0, fn) first, [fn, bn) middle, [bn, count) last."""

    fn: int
    bn: int
    count: int


class Gate:
    """Stands in for one block at which the group's forward opens, is decided or is joined."""

    def __init__(
        self, block: nn.Module, position: int, split: Split, course: Course, convention: BlockCall
    ) -> None:
        self._block = block
        self._opens = position == 0
        # Without first blocks there is nothing to decide, but still an outcome to be told.
        self._decides = position == max(split.fn, 1) - 1
        self._joins = position == split.bn - 1 >= split.fn
        self._course = course
        self._convention = convention

    @property
    def is_needed(self) -> bool:
        return self._opens or self._decides or self._joins

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._opens:
            self._course.forward = self._course.open()
        forward = self._course.forward
        assert forward is not None, "the lists of a group run in another order than declared"
        if not forward.is_watched:
            return self._block(*args, **kwargs)
        streams = self._convention.streams(args, kwargs)
        if self._opens:
            forward.enter(streams)
        output = self._block(*args, **kwargs)
        if self._decides:
            forward.decide(self._convention.after(streams, output))
        if self._joins:
            forward.join(self._convention.after(streams, output))
        return output


@dataclass(frozen=True, slots=True)
class SharedBlock:
    """Stands in for one block, or its gate, where ranks share the tokens."""

    run: Callable[..., Any]
    block_list: str
    sharing: GroupSharing
    convention: BlockCall
    opens: bool
    closes: bool

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, own = self.sharing.enter(self.block_list, (args, kwargs), opens=self.opens)
        output = self.run(*args, **own)
        if not self.closes:
            return output
        streams = self.convention.after(self.convention.streams(args, own), output)
        return self.convention.output(self.sharing.leave(streams))


class Walk:
    """One pass over a list after the other: its blocks are the group's blocks from ``start`` on."""

    def __init__(
        self,
        name: str,
        blocks: nn.ModuleList,
        start: int,
        split: Split,
        course: Course,
        convention: BlockCall,
        sharing: GroupSharing | None,
    ) -> None:
        callables: list[Any] = []
        for position, block in enumerate(blocks, start):
            gate = Gate(block, position, split, course, convention)
            run: Callable[..., Any] = gate if gate.is_needed else block
            if sharing is not None:
                closes = position == split.count - 1
                run = SharedBlock(
                    run, name, sharing, convention, opens=position == 0, closes=closes
                )
            callables.append(run)
        self._count = len(callables)
        end = start + self._count
        fn, bn = (min(max(point, start), end) - start for point in (split.fn, split.bn))
        self._first, self._middle, self._last = callables[:fn], callables[fn:bn], callables[bn:]
        self._ends_middle = start < split.bn <= end
        self._ends_group = self._ends_middle and split.bn == split.count
        self._course = course
        self._convention = convention
        self._sharing = sharing

    def __iter__(self) -> Iterator[Any]:
        if self._course.is_elsewhere():
            yield from repeat(self._passing, self._count)
            return
        yield from self._first
        # Only now, as the model asks for the next block, is the forward decided.
        forward = self._course.forward
        if not self._middle or forward is None or forward.predicted is None:
            yield from self._middle
        else:
            predicted = forward.predicted
            yield from repeat(self._returning(predicted), len(self._middle) - 1)
            if self._ends_middle:
                forward.predicted = None
            if self._ends_group and self._sharing is not None:
                predicted = self._sharing.leave(predicted)
            yield self._returning(predicted)
        yield from self._last

    def _passing(self, *args: Any, **kwargs: Any) -> Any:
        return self._convention.output(self._convention.streams(args, kwargs))

    def _returning(self, streams: Streams) -> Callable[..., Any]:
        output = self._convention.output(streams)
        return lambda *args, **kwargs: output


class _WalkedList(nn.ModuleList):
    """A block list that is iterated over by a walk."""

    _walk: Walk

    def __iter__(self) -> Iterator[Any]:
        return iter(self._walk)


@contextmanager
def walking(blocks: nn.ModuleList, walk: Walk) -> Iterator[None]:
    """Makes this one list be iterated over by the walk while the context lasts.

    Raises:
        RuntimeError: another run is attached to the list.
    """
    if isinstance(blocks, _WalkedList):
        raise RuntimeError("another run is attached to this model")
    blocks.__dict__["_walk"] = walk
    blocks.__class__ = _WalkedList
    try:
        yield
    finally:
        blocks.__class__ = nn.ModuleList
        del blocks.__dict__["_walk"]
