"""Lets a test be a coroutine, and gives it a planner's settings with short times."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path

import pytest

from planner.settings import Settings, Timing

SECONDS_PER_TEST = 30.0


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**arguments), SECONDS_PER_TEST))
    return True


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data=tmp_path / "data",
        listen="127.0.0.1:0",
        timing=Timing(
            broken_stream_grace=0.3,
            lease_ttl=3.0,
            attach_window=1.0,
            restart_window=1.0,
            cancel_window=0.6,
            connected_grace=0.5,
            return_window=0.0,
            stop_grace=1.0,
        ),
    )
