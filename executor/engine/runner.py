"""Stands in for a block list while a run is attached.

When the model's own forward iterates over an attached list, the list yields one runner instead of
its blocks, and the runner calls the blocks that the op says. Nothing else of the model changes:
the list keeps its modules, length, indexing and state dict, no forward is replaced, no class is
patched, and detaching restores the list exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from executor.engine.families import BlockCall
from executor.engine.forward import Forward


@dataclass(slots=True)
class Course:
    """The forward that a group's runners share: the first one opens it, the others follow."""

    open: Callable[[], Forward]
    forward: Forward | None = None


class BlockRunner:
    """Runs the blocks of one list, the blocks ``start`` and on of their group.

    The group's blocks from ``fn`` up to ``bn`` are the middle, which may be skipped.
    """

    def __init__(
        self,
        course: Course,
        convention: BlockCall,
        blocks: nn.ModuleList,
        *,
        start: int,
        fn: int,
        bn: int,
    ) -> None:
        modules = [blocks[i] for i in range(len(blocks))]
        end = start + len(modules)
        first, middle = (min(max(point - start, 0), len(modules)) for point in (fn, bn))
        self._course = course
        self._convention = convention
        self._first, self._middle, self._last = (
            modules[:first],
            modules[first:middle],
            modules[middle:],
        )
        # A point between two lists belongs to the one that ends there.
        self._opens = start == 0
        self._decides = start < fn <= end or fn == start == 0
        self._joins = start < bn <= end

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        streams, call = self._convention.bind(args, kwargs)
        if self._opens:
            self._course.forward = self._course.open()
            self._course.forward.enter(streams)
        forward = self._course.forward
        assert forward is not None, "the lists of a group run in another order than declared"
        streams = call.run(self._first, streams)
        if self._decides:
            forward.decide(streams)
        if not forward.skips:
            streams = call.run(self._middle, streams)
        if self._joins:
            streams = forward.join(streams)
        return self._convention.output(call.run(self._last, streams))


class _YieldingList(nn.ModuleList):
    """A block list whose iteration yields its runner."""

    _runner: BlockRunner

    def __iter__(self) -> Iterator[Any]:
        return iter((self._runner,))


def is_attached(blocks: nn.ModuleList) -> bool:
    return isinstance(blocks, _YieldingList)


@contextmanager
def yielding(blocks: nn.ModuleList, runner: BlockRunner) -> Iterator[None]:
    """Makes this one list yield the runner while the context lasts.

    Raises:
        RuntimeError: the list already yields another one.
    """
    if is_attached(blocks):
        raise RuntimeError("another run is attached to this model")
    blocks.__dict__["_runner"] = runner
    blocks.__class__ = _YieldingList
    try:
        yield
    finally:
        blocks.__class__ = nn.ModuleList
        del blocks.__dict__["_runner"]
