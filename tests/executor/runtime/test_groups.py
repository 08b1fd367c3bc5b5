"""Two executors in one launch: nothing that befalls one reaches the other's run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.executor.agent.scripted_planner import ScriptedPlanner
from tests.executor.runtime.launch import START_SECONDS, Launch, Work, shared_program

# Processes start and start anew, which takes ten times as long on a busy machine.
pytestmark = pytest.mark.timeout(300)

RUN_SECONDS = 30.0


def test_a_lost_replica_leaves_the_other_its_run(tmp_path: Path, checkpoint: Path) -> None:
    planner = ScriptedPlanner()
    planner.start()
    work = Work(planner)
    options = ("--group-size", "2", "--name", "pair")
    launch = Launch(tmp_path, planner.address, checkpoint, 4, *options, restarts=0)
    try:
        # Whichever takes a job runs it with its own two ranks; no two have one name.
        jobs = [work.offer(shared_program("F" * 400, ulysses_size=2)) for _ in range(2)]
        launch.await_that(lambda: all(job.steps for job in jobs), START_SECONDS)
        names = [job.attaches[0].executor for job in jobs]
        assert sorted(names) == ["pair-0", "pair-1"]
        loaded = launch.events("model_loaded")
        assert sorted((entry["executor"], entry["rank"]) for entry in loaded) == [
            (name, rank) for name in ("pair-0", "pair-1") for rank in (0, 1)
        ]
        struck, spared = jobs
        launch.kill_rank(names[0], 1)
        assert struck.over.wait(RUN_SECONDS), launch.text
        assert struck.failure is not None, launch.text
        assert struck.failure.message == "rank 1 ended"
        assert struck.failure.retryable
        # The launcher ends all its processes; those that run something drain.
        assert spared.over.wait(RUN_SECONDS), launch.text
        assert spared.completion is not None, launch.text
    finally:
        launch.kill()
        planner.stop()
