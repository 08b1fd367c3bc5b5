"""`python -m executor`: one rank that holds a model and runs what a planner leases to it."""

from __future__ import annotations

import os
import socket
import sys

import click

# The exit statuses beside 0.
FAILED = 1
MISUSE = 2


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--planner", required=True, metavar="HOST:PORT", help="The planner to ask for work.")
@click.option(
    "--model", required=True, help="A diffusers checkpoint directory, or a name on the hub."
)
@click.option("--served-name", help="The model's name to clients.  [default: its directory]")
@click.option("--name", help="Unique among executors.  [default: host name and process id]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    help="auto: bfloat16 on CUDA, float32 on the CPU.",
)
@click.option(
    "--listen",
    default="127.0.0.1:0",
    show_default=True,
    metavar="HOST:PORT",
    help="For health checks and questions about this executor.",
)
@click.option(
    "--drain-seconds",
    type=click.FloatRange(min=0, max=86_400),
    default=60,
    show_default=True,
    help="How long the current run may go on after SIGTERM.",
)
def main(
    planner: str,
    model: str,
    served_name: str | None,
    name: str | None,
    device: str,
    dtype: str,
    listen: str,
    drain_seconds: float,
) -> None:
    """Hold a model and run what the planner leases."""
    _require_address("--planner", planner)
    _require_address("--listen", listen)
    _require_one_rank()

    # Read once, when torch is loaded. Threads that spin while they wait make a step many times
    # slower as soon as another process wants their cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    # Only now, so that --help and misuse answer at once.
    import structlog

    from executor.agent.logs import configure
    from executor.agent.server import CannotListenError, ExecutorServer
    from executor.agent.shutdown import Shutdown

    configure()
    name = name or f"{socket.gethostname()}-{os.getpid()}"
    server = ExecutorServer()
    with Shutdown(drain_seconds) as shutdown:
        try:
            port = server.start(listen)
        except CannotListenError as error:
            raise click.BadParameter(str(error), param_hint="--listen") from None
        address = listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"
        structlog.get_logger("executor").info("listening", executor=name, address=address)

        from executor.agent.dialer import RefusedByPlannerError
        from executor.agent.failures import DeviceFailedError
        from executor.agent.serve import Settings, serve
        from executor.placement.device import DeviceChoice, DtypeChoice
        from executor.placement.errors import PlacementError

        settings = Settings(
            planner=planner,
            model=model,
            name=name,
            served_name=served_name,
            device=DeviceChoice(device),
            dtype=DtypeChoice(dtype),
        )
        try:
            serve(settings, server, shutdown)
        except PlacementError as error:
            _fail(MISUSE, error)
        except (RefusedByPlannerError, DeviceFailedError) as error:
            _fail(FAILED, error)
        finally:
            server.stop()


def _require_address(option: str, address: str) -> None:
    if address.startswith(("unix:", "dns:")):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise click.BadParameter(f"{address!r} is not HOST:PORT", param_hint=option)


def _require_one_rank() -> None:
    world_size = os.environ.get("WORLD_SIZE", "1")
    if world_size != "1":
        raise click.UsageError(
            f"multi-rank execution is not supported yet (WORLD_SIZE is {world_size})"
        )


def _fail(status: int, error: Exception) -> None:
    click.echo(f"error: {error}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
