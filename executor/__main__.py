"""`python -m executor`: ranks that hold a model and run what a planner leases to them.

One process is one rank; torchrun starts several.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import NoReturn

import click
from ditplan.common.connection import Connection, ConnectionOptionsError, is_local
from ditplan.common.connection_options import connection_options
from ditplan.v1 import plan_pb2

from executor.agent.options import SIZES, PlanFile, boolean
from executor.agent.settings import Settings, Size
from executor.runtime.seat import LAUNCHER_RUN, NoSeatError, Seat, end_with_launcher

# The exit statuses beside 0.
FAILED = 1
MISUSE = 2
LOG_LEVELS = ("debug", "info", "warning", "error")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--planner", required=True, metavar="HOST:PORT", help="The planner to ask for work.")
@click.option(
    "--model", required=True, help="A diffusers checkpoint directory, or a name on the hub."
)
@click.option(
    "--revision", metavar="COMMIT_OR_BRANCH", help="Which state of a model on the hub to load."
)
@click.option("--variant", metavar="NAME", help="Weights of that variant, e.g. fp16.")
@click.option(
    "--lora",
    metavar="FILE_OR_NAME",
    help="An adapter to fuse into the weights: a file, a directory or a name on the hub.",
)
@click.option("--lora-scale", type=float, help="How much the adapter counts.  [default: 1]")
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
    help="For health checks; on this machine, or with --insecure, for questions about it, too.",
)
@click.option(
    "--drain-seconds",
    type=click.FloatRange(min=0, max=86_400),
    default=60,
    show_default=True,
    help="How long the current run may go on after SIGTERM.",
)
@click.option(
    "--group-size",
    type=click.IntRange(min=1),
    help="Splits torchrun's ranks into executors of so many.  [default: one executor]",
)
@click.option(
    "--plan",
    type=PlanFile(),
    help="Hold what this plan of `ditplan compile` needs: quantization, shared tensors.",
)
@click.option(
    "--tp-size",
    type=click.IntRange(min=1),
    help="How many ranks share the tensors of a transformer.  [default: the plan's, or 1]",
)
@click.option(
    "--extra-parallel-modules",
    metavar="NAME,...",
    help="The text encoders that the ranks share.  [default: the plan's, or none]",
)
@click.option(
    "--allow-reload",
    is_flag=True,
    help="Load the model anew for a plan that needs it quantized or split otherwise.",
)
@boolean("--compile", "--enable-torch-compile", help="Compile the transformers' blocks.")
@boolean("--dit-cpu-offload", help="Keep transformers in the host's memory until they run.")
@boolean("--dit-layerwise-offload", help="Keep their blocks there, each until it runs.")
@boolean("--text-encoder-cpu-offload", help="Keep text encoders there until they run.")
@boolean("--vae-cpu-offload", help="Keep the VAE there until it runs.")
@boolean("--warmup", help="Run two steps of --plan in every size before work is taken.")
@click.option(
    "--warmup-resolutions",
    type=SIZES,
    metavar="WIDTHxHEIGHT[xFRAMES],...",
    help="The sizes of --warmup.",
)
@connection_options
@click.option(
    "--metrics-listen",
    default="",
    metavar="HOST:PORT",
    help="Where Prometheus finds metrics, over plain HTTP.  [default: nowhere]",
)
@click.option("--log-level", type=click.Choice(LOG_LEVELS), default="info", show_default=True)
@click.option("--log-prompts", is_flag=True, help="Log the prompts of runs.")
@click.option("--verbose", is_flag=True, help="Log every layer that is quantized or is not.")
@click.option(
    "--rank-timeout",
    type=click.FloatRange(min=1, max=3600),
    default=60,
    show_default=True,
    help="Seconds after which a rank that does not answer counts as stopped.",
)
def main(
    planner: str,
    model: str,
    revision: str | None,
    variant: str | None,
    lora: str | None,
    lora_scale: float | None,
    served_name: str | None,
    name: str | None,
    device: str,
    dtype: str,
    listen: str,
    drain_seconds: float,
    group_size: int | None,
    plan: plan_pb2.Program | None,
    tp_size: int | None,
    extra_parallel_modules: str | None,
    allow_reload: bool,
    compile: bool,
    dit_cpu_offload: bool,
    dit_layerwise_offload: bool,
    text_encoder_cpu_offload: bool,
    vae_cpu_offload: bool,
    warmup: bool,
    warmup_resolutions: tuple[Size, ...] | None,
    connection: Connection,
    metrics_listen: str,
    log_level: str,
    log_prompts: bool,
    verbose: bool,
    rank_timeout: float,
) -> None:
    """Hold a model and run what the planner leases.

    Under torchrun all processes are one executor, or several of --group-size ranks each, whose
    names end in -0, -1, ... and which listen on one port after the other.
    """
    _require_address("--planner", planner)
    _require_address("--listen", listen)
    if metrics_listen:
        _require_address("--metrics-listen", metrics_listen)
    if plan is not None and (tp_size is not None or extra_parallel_modules is not None):
        raise click.UsageError("--plan says what --tp-size and --extra-parallel-modules say")
    if warmup != bool(warmup_resolutions) or (warmup and plan is None):
        raise click.UsageError("--warmup goes together with --warmup-resolutions and --plan")
    _require_name_of_adapted(lora, lora_scale, served_name)
    end_with_launcher()
    tp_size = tp_size or (plan.topology.tp_size if plan else 0) or 1
    seat = _seat(group_size, tp_size)
    if seat.rank == 0:
        _require_connection(connection, planner)
    if plan is not None and plan.topology.world_size != seat.size:
        raise click.BadParameter(
            f"it is for {plan.topology.world_size} ranks, the executor has {seat.size}",
            param_hint="--plan",
        )

    # Read once, when torch is loaded. Threads that spin while they wait make a step many times
    # slower as soon as another process wants their cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    # The launcher outlives its processes: restarted, they go by the same name.
    process = os.getppid() if LAUNCHER_RUN in os.environ else os.getpid()

    # Only now, so that --help and misuse answer at once.
    from executor.agent.logs import configure

    configure(level=log_level)
    settings = Settings(
        planner=planner,
        model=model,
        name=(name or f"{socket.gethostname()}-{process}") + seat.suffix,
        served_name=served_name,
        device=device,
        dtype=dtype,
        seat=seat,
        tp_size=tp_size,
        extra_parallel_modules=tuple(
            sorted({name.strip() for name in (extra_parallel_modules or "").split(",")} - {""})
        ),
        rank_timeout=rank_timeout,
        plan=plan,
        compiled=compile,
        dit_cpu_offload=dit_cpu_offload,
        dit_layerwise_offload=dit_layerwise_offload,
        text_encoder_cpu_offload=text_encoder_cpu_offload,
        vae_cpu_offload=vae_cpu_offload,
        warmup=warmup_resolutions or (),
        allow_reload=allow_reload,
        verbose=verbose,
        revision=revision,
        variant=variant,
        lora=lora,
        lora_scale=1.0 if lora_scale is None else lora_scale,
        connection=connection,
        log_prompts=log_prompts,
    )
    if seat.rank == 0:
        metrics_listen = metrics_listen and _address_of(seat, metrics_listen)
        _lead(settings, _address_of(seat, listen), metrics_listen, drain_seconds)
    else:
        _follow(settings)


def _lead(settings: Settings, listen: str, metrics_listen: str, drain_seconds: float) -> NoReturn:
    """Serves until a drain; ends the process, with whatever threads are stuck in it."""
    import structlog
    from ditplan.common.metrics_port import CannotListenError as CannotListenForMetricsError

    from executor.agent.server import CannotListenError, ExecutorServer
    from executor.agent.shutdown import Shutdown
    from executor.agent.telemetry import Telemetry

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
        from executor.placement.errors import PlacementError
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


def _require_address(option: str, address: str) -> None:
    if address.startswith(("unix:", "dns:")):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise click.BadParameter(f"{address!r} is not HOST:PORT", param_hint=option)


def _require_connection(connection: Connection, planner: str) -> None:
    """Said before the model is loaded."""
    try:
        connection.open(planner).close()
    except ConnectionOptionsError as error:
        raise click.UsageError(str(error)) from None


def _require_name_of_adapted(
    lora: str | None, lora_scale: float | None, served_name: str | None
) -> None:
    """Executors of one name draw the same, so one with an adapter goes by another."""
    if lora is not None and not served_name:
        raise click.UsageError("--lora changes the pictures: say by --served-name what is served")
    if lora is None and lora_scale is not None:
        raise click.UsageError("--lora-scale without --lora")


def _seat(group_size: int | None, tp_size: int) -> Seat:
    try:
        seat = Seat.of(os.environ, group_size)
    except NoSeatError as error:
        raise click.UsageError(str(error)) from None
    if seat.size % tp_size:
        raise click.BadParameter(
            f"{tp_size} does not divide the {seat.size} ranks of the executor",
            param_hint="--tp-size",
        )
    return seat


def _address_of(seat: Seat, listen: str) -> str:
    """Where an executor listens: each of a launch at an address of its own."""
    if listen.startswith("unix:"):
        return listen + seat.suffix
    host, _, port = listen.rpartition(":")
    return f"{host}:{int(port) + seat.group}" if int(port) else listen


def _say(error: Exception, status: int) -> int:
    click.echo(f"error: {error}", err=True)
    return status


if __name__ == "__main__":
    main()
