"""From what was said on the command line to settings; misuse is told before anything is loaded."""

from __future__ import annotations

import os
import socket

import click
from ditplan.common.connection import Connection, ConnectionOptionsError
from ditplan.v1 import plan_pb2

from executor.agent.settings import Settings, Size
from executor.runtime.seat import LAUNCHER_RUN, NoSeatError, Seat


def settings_of(
    *,
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
    log_prompts: bool,
    verbose: bool,
    rank_timeout: float,
) -> Settings:
    """The settings that these options stand for, in this process of its launch.

    Raises:
        click.UsageError: they do not go together, or not with the launch.
    """
    require_address("--planner", planner)
    if plan is not None and (tp_size is not None or extra_parallel_modules is not None):
        raise click.UsageError("--plan says what --tp-size and --extra-parallel-modules say")
    if warmup != bool(warmup_resolutions) or (warmup and plan is None):
        raise click.UsageError("--warmup goes together with --warmup-resolutions and --plan")
    _require_name_of_adapted(lora, lora_scale, served_name)
    tp_size = tp_size or (plan.topology.tp_size if plan else 0) or 1
    seat = _seat(group_size, tp_size)
    if seat.rank == 0:
        _require_connection(connection, planner)
    if plan is not None and plan.topology.world_size != seat.size:
        raise click.BadParameter(
            f"it is for {plan.topology.world_size} ranks, the executor has {seat.size}",
            param_hint="--plan",
        )
    # The launcher outlives its processes: restarted, they go by the same name.
    process = os.getppid() if LAUNCHER_RUN in os.environ else os.getpid()
    return Settings(
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


def require_address(option: str, address: str) -> None:
    """Raises click.BadParameter where it is none."""
    if address.startswith(("unix:", "dns:")):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise click.BadParameter(f"{address!r} is not HOST:PORT", param_hint=option)


def address_of(seat: Seat, listen: str) -> str:
    """Where an executor listens: each of a launch at an address of its own."""
    if listen.startswith("unix:"):
        return listen + seat.suffix
    host, _, port = listen.rpartition(":")
    return f"{host}:{int(port) + seat.group}" if int(port) else listen


def _require_connection(connection: Connection, planner: str) -> None:
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
