"""Injects faults into runs of an executor, one after the other, and times what follows."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.executor.agent.scripted_planner import Job, ScriptedPlanner
from tests.executor.runtime.launch import START_SECONDS, Launch, Work, shared_program

RANK_TIMEOUT = 3.0
# More than any restart takes, on a machine with other work.
HANG_SECONDS = START_SECONDS
LETTERS = "FCA"


@dataclass(frozen=True)
class Fault:
    """What befalls a rank in the middle of a step of a run."""

    kind: str
    rank: int
    step: int
    steps: str
    mesh: str

    @classmethod
    def draw(cls, chance: random.Random, ranks: int) -> Fault:
        length = chance.randint(2, 30)
        return cls(
            kind=chance.choice(("kill", "stop", "raise", "oom")),
            rank=chance.randrange(ranks),
            step=chance.randrange(length),
            steps="F" + "".join(chance.choices(LETTERS, k=length - 1)),
            mesh=chance.choice(("ulysses_size", "ring_size")),
        )

    def __str__(self) -> str:
        return f"{self.kind} on rank {self.rank} in step {self.step} of {len(self.steps)}"


@dataclass(frozen=True)
class Outcome:
    """Seconds from the fault to the first word of it, and from there to a step of the next run."""

    fault: Fault
    told: float
    recovered: float


class Campaign:
    """One launch of ranks, for as many injections as are asked for."""

    def __init__(self, launch: Launch, planner: ScriptedPlanner, ranks: int) -> None:
        self._launch = launch
        self._work = Work(planner)
        self._ranks = ranks
        self._pictures: dict[tuple[str, str], bytes] = {}

    def inject(self, fault: Fault) -> Outcome:
        """Raises AssertionError where anything hangs, is not told or draws another picture."""
        picture = self._picture(fault)
        lost = len(self._launch.events("rank_lost"))
        fired = self._launch.arm(fault.rank, fault.kind, fault.step)
        job = self._offer(fault)
        self._await(lambda: job.over.is_set() or len(self._launch.events("rank_lost")) > lost)
        told_at = time.time()
        injected_at = json.loads(fired.read_text())
        self._check(fault, job)
        job = self._offer(fault)
        self._await(lambda: bool(job.steps))
        recovered_at = time.time()
        assert self._finish(job) == picture, f"{fault}: the next picture is another"
        return Outcome(fault, told_at - injected_at, recovered_at - told_at)

    def _picture(self, fault: Fault) -> bytes:
        key = fault.steps, fault.mesh
        if key not in self._pictures:
            self._pictures[key] = self._finish(self._offer(fault))
        return self._pictures[key]

    def _check(self, fault: Fault, job: Job) -> None:
        """The run's failure names the rank and says whether another attempt could succeed."""
        lost = fault.kind in ("kill", "stop")
        if lost and fault.rank == 0:
            # It cannot tell of its own end; the log of the others does.
            assert job.completion is None
            return
        self._await(job.over.is_set)
        assert job.failure is not None, f"{fault}: the run succeeded"
        assert f"rank {fault.rank} " in job.failure.message.replace(":", " "), job.failure
        assert job.failure.retryable == lost, job.failure

    def _offer(self, fault: Fault) -> Job:
        return self._work.offer(shared_program(fault.steps, **{fault.mesh: self._ranks}))

    def _finish(self, job: Job) -> bytes:
        self._await(job.over.is_set)
        assert job.completion is not None, job.failure
        return job.artifacts["image.png"]

    def _await(self, condition: Callable[[], bool]) -> None:
        self._launch.await_that(condition, HANG_SECONDS)


@contextmanager
def campaign(directory: Path, model: Path, *, ranks: int, injections: int) -> Iterator[Campaign]:
    """A campaign with an executor that may start anew as often as faults are injected."""
    planner = ScriptedPlanner()
    planner.start()
    options = ("--rank-timeout", str(RANK_TIMEOUT))
    launch = Launch(directory, planner.address, model, ranks, *options, restarts=injections)
    try:
        yield Campaign(launch, planner, ranks)
    finally:
        launch.kill()
        planner.stop()
