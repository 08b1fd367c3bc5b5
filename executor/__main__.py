"""`python -m executor`: ranks that hold a model and run what a planner leases to them.

One process is one rank; torchrun starts several.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click
from ditplan.common.connection import is_local

from executor.agent.command_line import address_of, require_address, settings_of
from executor.agent.options import options
from executor.agent.settings import Settings
from executor.runtime.seat import FAILED, MISUSE, end_with_launcher


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@options
def main(
    listen: str, metrics_listen: str, drain_seconds: float, log_level: str, **given: Any
) -> None:
    """Hold a model and run what the planner leases.

    Under torchrun all processes are one executor, or several of --group-size ranks each, whose
    names end in -0, -1, ... and which listen on one port after the other.
    """
    require_address("--listen", listen)
    if metrics_listen:
        require_address("--metrics-listen", metrics_listen)
    end_with_launcher()
    settings = settings_of(**given)

    # Read once, when torch is loaded. Threads that spin while they wait make a step many times
    # slower as soon as another process wants their cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    # Only now, so that --help and misuse answer at once.
    from executor.agent.telemetry.logs import configure

    configure(level=log_level)
    seat = settings.seat
    if seat.rank == 0:
        metrics_listen = metrics_listen and address_of(seat, metrics_listen)
        _lead(settings, address_of(seat, listen), metrics_listen, drain_seconds)
    else:
        _follow(settings)


def _lead(settings: Settings, listen: str, metrics_listen: str, drain_seconds: float) -> NoReturn:
    """Serves until a drain; ends the process, with whatever threads are stuck in it."""
    import structlog
    from ditplan.common.metrics_port import CannotListenError as CannotListenForMetricsError

    from executor.agent.server import CannotListenError, ExecutorServer
    from executor.agent.shutdown import Shutdown
    from executor.agent.telemetry.telemetry import Telemetry

    try:
        telemetry = Telemetry(settings, metrics_listen)
    except CannotListenForMetricsError as error:
        raise click.BadParameter(str(error), param_hint="--metrics-listen") from None
    server = ExecutorServer()
    status = 0
    with Shutdown(drain_seconds) as shutdown:
        try:
            private = is_local(listen) or settings.connection.insecure
            port = server.start(listen, health_only=not private)
        except CannotListenError as error:
            raise click.BadParameter(str(error), param_hint="--listen") from None
        address = listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"
        log = structlog.get_logger("executor")
        log.info("listening", executor=settings.name, address=address)
        for file in settings.connection.exposed():
            log.warning("secret_exposed", file=str(file), reason="everyone here can read it")

        from executor.agent.dialer import RefusedByPlannerError
        from executor.agent.serve import serve
        from executor.errors import PlacementError
        from executor.runtime.failures import ExecutorFailedError

        try:
            with telemetry:
                serve(settings, server, shutdown, telemetry.facts)
        except PlacementError as error:
            status = _say(error, MISUSE)
        except (RefusedByPlannerError, ExecutorFailedError) as error:
            status = _say(error, FAILED)
        finally:
            server.stop()
    if shutdown.requested.is_set() and not shutdown.is_signalled:
        # Another host ends. A launcher that saw success here would wait minutes for it.
        status = status or FAILED
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _follow(settings: Settings) -> NoReturn:
    from executor.runtime.failures import ExecutorFailedError
    from executor.runtime.follower import follow

    log = settings.log()
    try:
        follow(
            settings.seat,
            lambda placement: settings.load(placement, log),
            settings.placement(),
            rank_timeout=settings.rank_timeout,
            log=log,
        )
    except ExecutorFailedError as error:
        sys.exit(_say(error, FAILED))


def _say(error: Exception, status: int) -> int:
    click.echo(f"error: {error}", err=True)
    return status


if __name__ == "__main__":
    main()
