"""How an executor is started."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from ditplan.common.connection import PLAIN, Connection
from ditplan.v1 import plan_pb2
from structlog.typing import FilteringBoundLogger

from executor.runtime.seat import Seat

if TYPE_CHECKING:
    from executor.placement.load import LoadedPipeline
    from executor.placement.placement import Placement


@dataclass(frozen=True, slots=True)
class Size:
    """Of a picture or film in pixels; ``num_frames`` None: a picture, or as long as is usual."""

    width: int
    height: int
    num_frames: int | None = None

    def __str__(self) -> str:
        frames = "" if self.num_frames is None else f"x{self.num_frames}"
        return f"{self.width}x{self.height}{frames}"


@dataclass(frozen=True, slots=True)
class Settings:
    """How an executor is started; see `python -m executor --help`.

    ``plan`` is the program that it is to hold and to warm up with; None: it holds its model as it
    is stored, split over ``tp_size`` ranks.
    """

    planner: str
    model: str
    name: str
    served_name: str | None
    device: str
    dtype: str
    seat: Seat
    tp_size: int
    extra_parallel_modules: tuple[str, ...]
    rank_timeout: float
    plan: plan_pb2.Program | None = None
    compiled: bool = False
    dit_cpu_offload: bool = False
    dit_layerwise_offload: bool = False
    text_encoder_cpu_offload: bool = False
    vae_cpu_offload: bool = False
    warmup: tuple[Size, ...] = ()
    allow_reload: bool = False
    verbose: bool = False
    revision: str | None = None
    variant: str | None = None
    lora: str | None = None
    lora_scale: float = 1.0
    connection: Connection = PLAIN
    log_prompts: bool = False

    def log(self) -> FilteringBoundLogger:
        """For whatever this process logs."""
        log: FilteringBoundLogger = structlog.get_logger("executor").bind(executor=self.name)
        return log.bind(rank=self.seat.rank) if self.seat.size > 1 else log

    # What follows imports torch, and health checks are to be answered before that.

    def placement(self) -> Placement:
        """What the executor holds first."""
        from executor.codec_placement import requirements_from_proto
        from executor.placement.placement import Placement

        if self.plan is not None:
            return requirements_from_proto(self.plan).placement
        return Placement(self.tp_size, self.extra_parallel_modules)

    def load(self, placement: Placement, log: FilteringBoundLogger) -> LoadedPipeline:
        """Loads the model as this rank holds it.

        Raises:
            PlacementError: it cannot be loaded.
        """
        from executor.placement.device import DeviceChoice, DtypeChoice
        from executor.placement.load import load
        from executor.placement.offload import Offload
        from executor.placement.split import Share

        seat = self.seat
        loaded = load(
            self.model,
            served_name=self.served_name,
            device=DeviceChoice(self.device),
            dtype=DtypeChoice(self.dtype),
            device_index=seat.local_rank,
            share=Share(seat.rank, seat.size, placement.tp_size, placement.encoders),
            quantization=placement.quantization,
            compiled=self.compiled,
            offload=Offload(
                dit=self.dit_cpu_offload,
                text_encoder=self.text_encoder_cpu_offload,
                vae=self.vae_cpu_offload,
                dit_layerwise=self.dit_layerwise_offload,
            ),
            revision=self.revision,
            variant=self.variant,
            lora=self.lora,
            lora_scale=self.lora_scale,
        )
        for weights in loaded.unused:
            log.warning("weights_unused", weights=weights)
        for component in loaded.unquantized:
            log.warning("nothing_quantized", component=component)
        log.info(
            "model_loaded",
            model=loaded.served_name,
            device=loaded.device_name,
            dtype=loaded.dtype,
            quantization=str(loaded.quantization) or "none",
            pid=os.getpid(),
        )
        if self.verbose:
            _list(loaded, log)
        return loaded


def _list(loaded: LoadedPipeline, log: FilteringBoundLogger) -> None:
    """Logs what became of layers, and which attention backends cannot be used, with why."""
    for each in loaded.layers:
        log.info(
            "layers_quantized" if each.quant_type else "layers_not_quantized",
            component=each.component,
            name=each.name,
            count=each.count,
            weight_bytes=each.weight_bytes,
            **({"quant_type": each.quant_type} if each.quant_type else {"reason": each.reason}),
        )
    for name, reason in loaded.attention_faults.items():
        log.info("attention_backend_missing", name=name, reason=reason)
