"""How an executor is started."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from structlog.typing import FilteringBoundLogger

from executor.runtime.seat import Seat

if TYPE_CHECKING:
    from executor.placement.load import LoadedPipeline


@dataclass(frozen=True, slots=True)
class Settings:
    """How an executor is started; see `python -m executor --help`."""

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
    revision: str | None = None
    variant: str | None = None
    lora: str | None = None
    lora_scale: float = 1.0

    def log(self) -> FilteringBoundLogger:
        """For whatever this process logs."""
        log: FilteringBoundLogger = structlog.get_logger("executor").bind(executor=self.name)
        return log.bind(rank=self.seat.rank) if self.seat.size > 1 else log

    def load(self, log: FilteringBoundLogger) -> LoadedPipeline:
        """Loads the model as this rank holds it.

        Raises:
            PlacementError: it cannot be loaded.
        """
        # Only now: it imports torch, and health checks are to be answered before that.
        from executor.placement.device import DeviceChoice, DtypeChoice
        from executor.placement.load import load
        from executor.placement.split import Share

        loaded = load(
            self.model,
            served_name=self.served_name,
            device=DeviceChoice(self.device),
            dtype=DtypeChoice(self.dtype),
            device_index=self.seat.local_rank,
            revision=self.revision,
            variant=self.variant,
            lora=self.lora,
            lora_scale=self.lora_scale,
            share=Share(self.seat.rank, self.seat.size, self.tp_size, self.extra_parallel_modules),
        )
        for weights in loaded.unused:
            log.warning("weights_unused", weights=weights)
        log.info(
            "model_loaded",
            model=loaded.served_name,
            device=loaded.device_name,
            dtype=loaded.dtype,
            pid=os.getpid(),
        )
        return loaded
