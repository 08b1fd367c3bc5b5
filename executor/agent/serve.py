"""An executor from its first log line to its last."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from structlog.typing import FilteringBoundLogger

from executor.agent.dialer import Dialer
from executor.agent.runner import Runner
from executor.agent.server import ExecutorServer
from executor.agent.settings import Settings
from executor.agent.shutdown import Shutdown
from executor.agent.telemetry.facts import Facts, ModelLoaded
from executor.agent.warm_up import warm_up
from executor.codec_placement import executor_to_proto, layers_to_proto, requirements_from_proto
from executor.errors import PlacementError
from executor.placement.load import LoadedPipeline
from executor.placement.placement import Placement
from executor.placement.requirements import differences
from executor.runtime.held import Held
from executor.runtime.leader import Leader
from executor.runtime.one_rank import OneRank
from executor.runtime.ranks import Ranks


def serve(settings: Settings, server: ExecutorServer, shutdown: Shutdown, facts: Facts) -> None:
    """Loads the model and runs what the planner leases until a shutdown is requested.

    ``facts`` are told of what it does.

    Raises:
        PlacementError: the model cannot be loaded.
        RefusedByPlannerError: the planner does not want this executor.
        ExecutorFailedError: these processes can run nothing more.
    """
    log = settings.log()
    # Whoever asks for work is to stop asking.
    stop = threading.Event()

    def ready() -> None:
        server.ready()
        # A drain may have begun meanwhile.
        if stop.is_set():
            server.not_ready()

    with _ranks(settings, log, facts, on_failed=stop.set, on_ending=shutdown.ask) as ranks:
        _require_fit(settings, ranks)
        dialer = Dialer(
            settings.planner,
            settings.connection,
            stop=stop,
            log=log,
            facts=facts,
            # Not before: who waits for readiness may send work right after.
            on_answer=ready,
        )

        def announce() -> None:
            executor = executor_to_proto(settings.name, ranks.loaded, settings.allow_reload)
            dialer.announce(executor)
            server.describe(executor, layers_to_proto(ranks.loaded))

        @contextmanager
        def reloading() -> Iterator[None]:
            server.not_ready()
            yield
            announce()
            ready()

        def drain() -> None:
            stop.set()
            server.not_ready()

        runner = Runner(
            ranks,
            name=settings.name,
            shutdown=shutdown,
            on_begin=server.begin,
            reloading=reloading if settings.allow_reload else None,
            log=log,
            facts=facts,
            log_prompts=settings.log_prompts,
        )
        announce()
        shutdown.serving(on_drain=drain)
        warm_up(ranks, settings, is_cancelled=stop.is_set, log=log)
        try:
            while (work := dialer.acquire()) is not None:
                runner.run(dialer.stub, work.lease, work.assignment)
                server.end()
            ranks.recover()
        finally:
            server.not_ready()
            dialer.close()
    log.info("drained")


def _require_fit(settings: Settings, ranks: Ranks) -> None:
    """Raises PlacementError where the plan that is held could not be run."""
    if settings.plan is not None:
        found = differences(ranks.loaded, requirements_from_proto(settings.plan))
        if found:
            raise PlacementError(f"--plan: {'; '.join(found)}")


@contextmanager
def _ranks(
    settings: Settings,
    log: FilteringBoundLogger,
    facts: Facts,
    *,
    on_failed: Callable[[], None],
    on_ending: Callable[[], None],
) -> Iterator[Ranks]:
    """The ranks, all of which hold the model."""

    def load(placement: Placement) -> LoadedPipeline:
        began = time.monotonic()
        loaded = settings.load(placement, log)
        facts.tell(
            ModelLoaded(
                time.monotonic() - began,
                loaded.served_name,
                loaded.device_name,
                loaded.dtype,
                str(loaded.quantization) or "none",
            )
        )
        return loaded

    def held() -> Held:
        return Held(load, settings.placement())

    if settings.seat.size == 1:
        yield OneRank(held())
        return
    leader = Leader(
        settings.seat,
        rank_timeout=settings.rank_timeout,
        on_failed=on_failed,
        on_ending=on_ending,
        log=log,
    )
    with leader:
        leader.lead(held())
        yield leader
