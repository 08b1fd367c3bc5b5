"""``ditplan serve``: the two services in the foreground."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
from ditplan.common.connection import Connection, ConnectionOptionsError

from planner.cli.forwarding import dispatch_options, in_its_words
from planner.cli.quantities import duration, size
from planner.front.settings import FrontSettings
from planner.settings import LOG_LEVELS, Limits, Security, Settings, Timing

_FILE = click.Path(dir_okay=False, path_type=Path)
F = TypeVar("F", bound=Callable[..., Any])


def _check_port(
    context: click.Context, parameter: click.Parameter, address: str | None
) -> str | None:
    """gRPC would take a port that is too large for another one."""
    if address is None:
        return None
    port = address.rpartition(":")[2]
    if not address.startswith(("unix:", "dns:")) and not (port.isdecimal() and int(port) < 65_536):
        raise click.BadParameter(f"{address!r} is not HOST:PORT")
    return address


def _check_metrics_port(context: click.Context, parameter: click.Parameter, address: str) -> str:
    host, _, port = address.rpartition(":")
    if address and not (host and port.isdecimal() and int(port) < 65_536):
        raise click.BadParameter(f"{address!r} is not HOST:PORT")
    return address


def _maximum(name: str, help: str, limit: str = "") -> Callable[[F], F]:
    """An option for one of the limits, of its name unless that is given."""
    most = getattr(Limits(), limit or name.replace("-", "_"))
    return click.option(
        f"--max-{name}", type=click.IntRange(1), default=most, show_default=True, help=help
    )


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
@dispatch_options
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
@_maximum("pixels", "Refuse pictures with more, which an executor's memory might not hold.")
@_maximum("frames", "Refuse films with more.")
@_maximum("steps", "Refuse runs with more.")
@_maximum("queue", "Refuse what comes when so many generations are queued.", "queue_length")
@_maximum("streams-per-client", "Refuse a client's calls beyond so many streams.")
@_maximum(
    "queue-per-client", "Refuse what comes when so many generations of its client are queued."
)
@click.option(
    "--retain",
    type=duration,
    metavar="DURATION",
    default="7d",
    show_default=True,
    help="Forget generations and artifacts so long after their end; 0: never.",
)
@click.option(
    "--max-data-bytes",
    type=size,
    metavar="SIZE",
    default="0",
    help="Forget the oldest that ended when all take more; 0: what the disk has.  [default: 0]",
)
@click.option("--tls-cert", type=_FILE, help="Serve by TLS with this certificate chain (PEM).")
@click.option("--tls-key", type=_FILE, help="The certificate's key (PEM).")
@click.option(
    "--tls-client-ca",
    type=_FILE,
    help="Refuse connections without a certificate of one of these authorities (PEM).",
)
@click.option(
    "--tokens", type=_FILE, help="Let in only whom this file lists, see `ditplan token` (YAML)."
)
@click.option(
    "--insecure", is_flag=True, help="Serve other machines in plaintext, for all to read."
)
@click.option(
    "--health-listen",
    metavar="HOST:PORT",
    callback=_check_port,
    help="Answer health checks there, too, always in plaintext.",
)
@click.option(
    "--metrics-listen",
    default="",
    metavar="HOST:PORT",
    callback=_check_metrics_port,
    help="Where Prometheus finds metrics, over plain HTTP.  [default: nowhere]",
)
@click.option(
    "--scaler-listen",
    metavar="HOST:PORT",
    callback=_check_port,
    help="Tell KEDA there how much work is queued (externalscaler), always in plaintext.",
)
@click.option("--log-level", type=click.Choice(LOG_LEVELS), default="info", show_default=True)
@click.option("--log-prompts", is_flag=True, help="Log the prompts of accepted work.")
def planner(
    listen: str,
    dispatch: str | None,
    connection: Connection,
    data: Path,
    model_roots: tuple[Path, ...],
    max_pixels: int,
    max_frames: int,
    max_steps: int,
    max_queue: int,
    max_streams_per_client: int,
    max_queue_per_client: int,
    retain: float,
    max_data_bytes: int,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    tokens: Path | None,
    insecure: bool,
    health_listen: str | None,
    metrics_listen: str,
    scaler_listen: str | None,
    log_level: str,
    log_prompts: bool,
) -> None:
    """Compile, queue and stream plans to the executors that dial in."""
    limits = Limits(
        pixels=max_pixels,
        frames=max_frames,
        steps=max_steps,
        queue_length=max_queue,
        streams_per_client=max_streams_per_client,
        queue_per_client=max_queue_per_client,
        data_bytes=max_data_bytes,
    )
    timing = Timing(retain=retain)
    security = Security(tls_cert, tls_key, tls_client_ca, tokens, insecure, health_listen)
    if dispatch is not None:
        front = FrontSettings(
            dispatch,
            connection,
            listen=listen,
            model_roots=model_roots,
            limits=limits,
            security=security,
            metrics_listen=metrics_listen,
            log_level=log_level,
        )
        _serve_front(front)
        return
    settings = Settings(
        data=data,
        listen=listen,
        model_roots=model_roots,
        timing=timing,
        limits=limits,
        security=security,
        metrics_listen=metrics_listen,
        scaler_listen=scaler_listen,
        log_level=log_level,
        log_prompts=log_prompts,
    )
    _serve_planner(settings)


def _serve_planner(settings: Settings) -> None:
    from planner.service.server import serve
    from planner.store.directory import UnusableDirectoryError

    try:
        _run(serve(settings))
    except UnusableDirectoryError as error:
        raise click.BadParameter(str(error), param_hint="--data") from None


def _serve_front(settings: FrontSettings) -> None:
    from planner.front.server import serve

    try:
        _run(serve(settings))
    except ConnectionOptionsError as error:
        raise click.UsageError(in_its_words(error)) from None


def _run(serving: Coroutine[Any, Any, None]) -> None:
    from ditplan.common.metrics_port import CannotListenError

    from planner.access.tls import SecurityError
    from planner.access.tokens import TokensError
    from planner.listening.sockets import ListenError

    try:
        asyncio.run(serving)
    except SecurityError as error:
        raise click.UsageError(str(error)) from None
    except TokensError as error:
        raise click.BadParameter(str(error), param_hint="--tokens") from None
    except CannotListenError as error:
        raise click.BadParameter(str(error), param_hint="--metrics-listen") from None
    except ListenError as error:
        raise click.UsageError(str(error)) from None


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
