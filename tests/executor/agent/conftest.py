from __future__ import annotations

from collections.abc import Iterator

import pytest

from executor.placement.load import LoadedPipeline
from tests.executor.agent.in_process import Agent, SlowSteps
from tests.executor.agent.scripted_planner import ScriptedPlanner


@pytest.fixture
def planner() -> Iterator[ScriptedPlanner]:
    planner = ScriptedPlanner()
    planner.start()
    yield planner
    planner.stop()


@pytest.fixture
def agent(loaded: LoadedPipeline, planner: ScriptedPlanner) -> Iterator[Agent]:
    agent = Agent(loaded, planner.address)
    agent.thread.start()
    yield agent
    agent.stop()


@pytest.fixture
def slow_steps(loaded: LoadedPipeline) -> Iterator[SlowSteps]:
    slow_steps = SlowSteps()
    hook = loaded.pipeline.transformer.register_forward_pre_hook(slow_steps)
    yield slow_steps
    hook.remove()
