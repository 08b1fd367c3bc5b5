"""The state of the service at a glance, looked up once for all who watch."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version

from ditplan.v1 import executor_pb2, monitor_pb2

from planner.dispatch.matching import Offer
from planner.dispatch.roster import Roster
from planner.dispatch.sessions import Sessions
from planner.scaling.forecast import Forecast
from planner.store.interface import Store
from planner.store.messages import timestamp
from planner.store.values import RunningWork

MAX_EXECUTORS = 1000
MAX_QUEUE = 100
_MAX_MODELS = 64
_OTHER = "other"


class StatusBoard:
    def __init__(
        self,
        store: Store,
        roster: Roster,
        sessions: Sessions,
        forecast: Forecast,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._roster = roster
        self._sessions = sessions
        self._forecast = forecast
        self._models: set[str] = set()
        self._clock = clock
        self._version = f"ditplan {version('ditplan')}"
        self._latest: monitor_pb2.WatchStatusResponse | None = None
        self._taken_at = 0.0

    def status(self, max_age: float) -> monitor_pb2.WatchStatusResponse:
        """The state as it was at most so many seconds ago; shared, so not to be changed."""
        now = self._clock()
        if self._latest is None or now - self._taken_at >= max_age:
            self._latest, self._taken_at = self._look(), now
        return self._latest

    def _look(self) -> monitor_pb2.WatchStatusResponse:
        overview = self._store.overview(MAX_QUEUE, MAX_EXECUTORS)
        runs = {run.executor: run for run in overview.runs}
        present = sorted(self._roster.silences(), key=lambda found: found[0].executor)
        return monitor_pb2.WatchStatusResponse(
            time=timestamp(time.time()),
            version=self._version,
            queued=overview.queued,
            oldest_queued_seconds=overview.oldest_queued_seconds,
            running=overview.running,
            executors=[
                self._executor(offer, silent, runs.get(offer.executor))
                for offer, silent in present[:MAX_EXECUTORS]
            ],
            queue=[
                monitor_pb2.QueuedGeneration(
                    generation=f"generations/{work.generation}",
                    model=work.model,
                    priority=work.priority,
                    waited_seconds=work.waited_seconds,
                )
                for work in overview.head
            ],
            work=self._work(),
        )

    def _work(self) -> list[monitor_pb2.ModelWork]:
        """Of every model that has had some, so that what has ended is told of as nothing."""
        by_model = self._forecast.by_model()
        for model in sorted(by_model):
            if len(self._models) < _MAX_MODELS:
                self._models.add(model)
        seconds = dict.fromkeys(sorted(self._models), (0.0, 0.0))
        for model, backlog in by_model.items():
            known = model if model in self._models else _OTHER
            queued, running = seconds.get(known, (0.0, 0.0))
            seconds[known] = queued + backlog.queued_seconds, running + backlog.running_seconds
        return [
            monitor_pb2.ModelWork(model=model, queued_seconds=queued, running_seconds=running)
            for model, (queued, running) in seconds.items()
        ]

    def _executor(
        self, offer: Offer, silent: float, run: RunningWork | None
    ) -> monitor_pb2.ExecutorStatus:
        announced = offer.announced or executor_pb2.Executor(name=offer.executor)
        status = monitor_pb2.ExecutorStatus(executor=announced, silent_seconds=silent)
        if run is not None:
            status.run.CopyFrom(
                monitor_pb2.RunStatus(
                    generation=f"generations/{run.generation}",
                    plan_id=run.plan_id,
                    attempt=run.attempt,
                    steps_done=run.steps_done,
                    step_count=run.step_count,
                    start_time=timestamp(run.started_at),
                    last_step=self._sessions.last_step(run.generation),
                )
            )
        return status
