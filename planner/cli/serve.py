"""``ditplan serve``: the two services in the foreground."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import click

from planner.settings import LOG_LEVELS, Limits, Settings


def _check_port(context: click.Context, parameter: click.Parameter, address: str) -> str:
    """gRPC would take a port that is too large for another one."""
    port = address.rpartition(":")[2]
    if not address.startswith(("unix:", "dns:")) and not (port.isdecimal() and int(port) < 65_536):
        raise click.BadParameter(f"{address!r} is not HOST:PORT")
    return address


def _check_metrics_port(context: click.Context, parameter: click.Parameter, address: str) -> str:
    host, _, port = address.rpartition(":")
    if address and not (host and port.isdecimal() and int(port) < 65_536):
        raise click.BadParameter(f"{address!r} is not HOST:PORT")
    return address


@click.group()
def serve() -> None:
    """Run a planner or an executor as a service."""


@serve.command()
@click.option(
    "--listen",
    default="127.0.0.1:7330",
    show_default=True,
    metavar="HOST:PORT",
    callback=_check_port,
    help="Where clients and executors dial; port 0 takes any free one, unix:PATH a socket.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("ditplan-data"),
    show_default=True,
    help="Holds the database and the artifacts.",
)
@click.option(
    "--model-root",
    "model_roots",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Checkpoints below this directory may be named by path. Repeatable.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=Limits().pixels,
    show_default=True,
    help="Refuse pictures with more, which an executor's memory might not hold.",
)
@click.option(
    "--metrics-listen",
    default="",
    metavar="HOST:PORT",
    callback=_check_metrics_port,
    help="Where Prometheus finds metrics, over plain HTTP.  [default: nowhere]",
)
@click.option("--log-level", type=click.Choice(LOG_LEVELS), default="info", show_default=True)
@click.option("--log-prompts", is_flag=True, help="Log the prompts of accepted work.")
def planner(
    listen: str,
    data: Path,
    model_roots: tuple[Path, ...],
    max_pixels: int,
    metrics_listen: str,
    log_level: str,
    log_prompts: bool,
) -> None:
    """Compile, queue and stream plans to the executors that dial in."""
    from planner.service.server import ListenError, MetricsListenError, UnusableDirectoryError
    from planner.service.server import serve as serve_planner

    limits = Limits(pixels=max_pixels)
    settings = Settings(
        data=data,
        listen=listen,
        model_roots=model_roots,
        limits=limits,
        metrics_listen=metrics_listen,
        log_level=log_level,
        log_prompts=log_prompts,
    )
    try:
        asyncio.run(serve_planner(settings))
    except MetricsListenError as error:
        raise click.BadParameter(str(error), param_hint="--metrics-listen") from None
    except ListenError as error:
        raise click.BadParameter(str(error), param_hint="--listen") from None
    except UnusableDirectoryError as error:
        raise click.BadParameter(str(error), param_hint="--data") from None


@serve.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def executor(arguments: tuple[str, ...]) -> None:
    """Hold a model and run what a planner leases (python -m executor)."""
    # Another process image: the planner's package does not know the executor's.
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "executor", *arguments])
