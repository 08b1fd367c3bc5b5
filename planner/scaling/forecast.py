"""The unfinished work in predicted seconds, of each model, as it is now."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from planner.dispatch.facts import Created, Ended, Fact, Granted, Requeued
from planner.dispatch.notices import Notices
from planner.scaling.demand import Backlog
from planner.scaling.speeds import Speeds
from planner.store.interface import Store
from planner.store.values import State, Unfinished

WORK_CHANGED = "work changed"
"""What to listen to for work that arrives, runs or ends."""
# Steps go on without a word to this.
_MAX_AGE_SECONDS = 0.5
# Read once, when a planner starts.
_REMEMBERED_RUNS = 256


class Forecast:
    """Hears of facts; all of it in the loop's thread."""

    def __init__(
        self, store: Store, notices: Notices, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._notices = notices
        self._clock = clock
        self._speeds = Speeds(reversed(store.last_finished(_REMEMBERED_RUNS)))
        self._by_model: Mapping[str, Backlog] = {}
        self._looked_at: float | None = None

    def hear(self, fact: Fact) -> None:
        if not isinstance(fact, Created | Granted | Requeued | Ended):
            return
        if isinstance(fact, Ended) and fact.ending.state is State.SUCCEEDED:
            run = self._store.finished(fact.generation)
            if run is not None:
                self._speeds.learn(run)
        self._looked_at = None
        self._notices.notify(WORK_CHANGED)

    def of(self, model: str) -> Backlog:
        """The work of one model, by the name it is served under; "": of all."""
        by_model = self.by_model()
        if model:
            return by_model.get(model, Backlog())
        return Backlog(
            tuple(each for backlog in by_model.values() for each in backlog.queued),
            tuple(each for backlog in by_model.values() for each in backlog.running),
        )

    def by_model(self) -> Mapping[str, Backlog]:
        """Of every model that has work; at most half a second old, and as new as the last fact."""
        now = self._clock()
        if self._looked_at is None or now - self._looked_at >= _MAX_AGE_SECONDS:
            self._by_model, self._looked_at = self._look(), now
        return self._by_model

    def _look(self) -> Mapping[str, Backlog]:
        queued: dict[str, list[tuple[float, int]]] = {}
        running: dict[str, list[float]] = {}
        for work in self._store.unfinished():
            seconds = self._left(work)
            if work.steps_done is None:
                queued.setdefault(work.load.model, []).append((seconds, work.count))
            else:
                running.setdefault(work.load.model, []).append(seconds)
        return {
            model: Backlog(tuple(queued.get(model, ())), tuple(running.get(model, ())))
            for model in queued.keys() | running.keys()
        }

    def _left(self, work: Unfinished) -> float:
        """Of a run in its share of steps: how long it has run says less where a machine is busy."""
        load = work.load
        left = load.step_count - (work.steps_done or 0)
        return self._speeds.seconds(load) * left / load.step_count
