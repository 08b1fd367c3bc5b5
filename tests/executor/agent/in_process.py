"""An executor inside the test's process: everything but the process itself."""

from __future__ import annotations

import threading
import time
from typing import Any

import structlog

from executor.agent.dialer import Dialer
from executor.agent.runner import Runner
from executor.agent.shutdown import Shutdown
from executor.agent.telemetry.facts import Facts
from executor.codec_placement import executor_to_proto
from executor.placement.load import LoadedPipeline
from executor.placement.placement import UNSHARED
from executor.runtime.held import Held
from executor.runtime.one_rank import OneRank

JOIN_SECONDS = 20.0
DELIVERY_SECONDS = 10.0


class Agent:
    """The loop of an executor, in a thread."""

    def __init__(self, loaded: LoadedPipeline, planner: str) -> None:
        """``planner`` is its address."""
        log = structlog.get_logger("executor").bind(executor="here")
        # Not entered: signals belong to the main thread.
        self.shutdown = Shutdown(drain_seconds=60)
        self.facts = Facts()
        self.begun: list[tuple[str, str]] = []
        self.runner = Runner(
            OneRank(Held(lambda placement: loaded, UNSHARED)),
            name="here",
            shutdown=self.shutdown,
            on_begin=lambda *run: self.begun.append(run),
            log=log,
            facts=self.facts,
            delivery_seconds=DELIVERY_SECONDS,
        )
        self.dialer = Dialer(planner, stop=self.shutdown.requested, log=log, facts=self.facts)
        self.dialer.announce(executor_to_proto("here", loaded, allow_reload=False))
        self.ended_with: Exception | None = None
        self.thread = threading.Thread(target=self._loop)

    def _loop(self) -> None:
        try:
            while (work := self.dialer.acquire()) is not None:
                self.runner.run(self.dialer.stub, work.lease, work.assignment)
        except Exception as error:
            self.ended_with = error

    def stop(self) -> None:
        self.shutdown.requested.set()
        self.thread.join(JOIN_SECONDS)
        self.dialer.close()
        assert not self.thread.is_alive()


class SlowSteps:
    """Makes every forward take ``seconds`` longer and notes when each began."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.began: list[float] = []

    def __call__(self, *_: Any) -> None:
        self.began.append(time.monotonic())
        time.sleep(self.seconds)
