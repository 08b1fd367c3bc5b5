"""An executor from its first log line to its last."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from executor.agent.dialer import Dialer
from executor.agent.runner import Runner
from executor.agent.server import ExecutorServer
from executor.agent.shutdown import Shutdown
from executor.codec import executor_to_proto
from executor.placement.device import DeviceChoice, DtypeChoice
from executor.placement.load import load


@dataclass(frozen=True, slots=True)
class Settings:
    """How an executor is started; see `python -m executor --help`."""

    planner: str
    model: str
    name: str
    served_name: str | None
    device: DeviceChoice
    dtype: DtypeChoice


def serve(settings: Settings, server: ExecutorServer, shutdown: Shutdown) -> None:
    """Loads the model and runs what the planner leases until a shutdown is requested.

    Raises:
        PlacementError: the model cannot be loaded.
        RefusedByPlannerError: the planner does not want this executor.
        DeviceFailedError: the device does nothing more for this process.
    """
    log = structlog.get_logger("executor").bind(executor=settings.name)
    loaded = load(
        settings.model,
        served_name=settings.served_name,
        device=settings.device,
        dtype=settings.dtype,
    )
    log.info(
        "model_loaded", model=loaded.served_name, device=loaded.device_name, dtype=loaded.dtype
    )
    announcement = executor_to_proto(settings.name, loaded)
    runner = Runner(loaded, name=settings.name, shutdown=shutdown, on_begin=server.begin, log=log)
    dialer = Dialer(
        settings.planner,
        announcement,
        stop=shutdown.requested,
        log=log,
        # Not before: who waits for readiness may send work right after.
        on_answer=server.ready,
    )
    server.describe(announcement)
    shutdown.serving(on_drain=server.draining)
    try:
        while (lease := dialer.acquire()) is not None:
            runner.run(dialer.stub, lease)
            server.end()
    finally:
        server.draining()
        dialer.close()
    log.info("drained")
