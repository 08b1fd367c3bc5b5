"""The events of a generation: those stored, then those to come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from ditplan.v1 import generation_pb2

from planner.dispatch.notices import Notices, wait
from planner.dispatch.shutdown import Shutdown
from planner.errors import Violation, invalid
from planner.store.interface import Store
from planner.store.values import State

# Read from the store in pieces, so that a slow watcher holds no more than this.
_EVENTS_AT_ONCE = 64
_LOOK_AGAIN_SECONDS = 30.0
_NOTHING = ("", 0, 0)
_RUNS_ON = (State.QUEUED, State.RUNNING)


class Watch:
    def __init__(self, store: Store, notices: Notices, shutdown: Shutdown) -> None:
        self._store = store
        self._notices = notices
        self._shutdown = shutdown
        self._asked = _NOTHING
        self._found: Sequence[generation_pb2.GenerationEvent] = ()

    async def events(
        self, generation: str, after: int
    ) -> AsyncGenerator[generation_pb2.GenerationEvent, None]:
        """Every event after that sequence, which an event must have, until the generation ends."""
        current = self._store.progress(generation)
        if current is not None and after > current[1]:
            text = f"{after} is of no event; the last one so far is {current[1]}"
            raise invalid([Violation("after_sequence", text)])
        with self._notices.listen(generation) as changed:
            while True:
                changed.clear()
                found = self._after(generation, after)
                for event in found:
                    yield event
                    after = event.sequence
                if len(found) == _EVENTS_AT_ONCE:
                    continue
                if self._ended(generation, found):
                    return
                self._shutdown.refuse_if_begun()
                await wait(changed, _LOOK_AGAIN_SECONDS)

    def _after(self, generation: str, after: int) -> Sequence[generation_pb2.GenerationEvent]:
        """What many watchers of one generation ask for in one turn of the loop is read once."""
        asked = (generation, after, self._notices.count)
        if self._asked != asked:
            self._found = self._store.events(generation, after, _EVENTS_AT_ONCE)
            self._asked = asked
            asyncio.get_running_loop().call_soon(self._forget)
        return self._found

    def _forget(self) -> None:
        """Old events may go without a notice."""
        self._asked, self._found = _NOTHING, ()

    def _ended(self, generation: str, found: Sequence[generation_pb2.GenerationEvent]) -> bool:
        """Whether nothing comes after what was found last."""
        if found:
            return found[-1].HasField("finished")
        current = self._store.progress(generation)
        return current is None or current[0] not in _RUNS_ON
