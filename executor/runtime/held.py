"""The pipeline that a rank holds, and how it comes to hold another."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace

import torch

from executor.errors import PlacementError
from executor.placement.load import LoadedPipeline, refuse_impossible
from executor.placement.placement import Placement


class Held:
    """``load`` gives the model as a placement has it; it is called at once with the first."""

    def __init__(self, load: Callable[[Placement], LoadedPipeline], placement: Placement) -> None:
        """Raises PlacementError where it cannot be loaded."""
        self._load = load
        self._loaded: LoadedPipeline | None = load(placement)
        self.digest = self.loaded.checkpoint.digest
        """Of the checkpoint that was loaded first, which is that of every later one."""

    @property
    def loaded(self) -> LoadedPipeline:
        assert self._loaded is not None, "nothing is loaded since a reload failed"
        return self._loaded

    @property
    def is_loaded(self) -> bool:
        """Not so only once a reload has failed."""
        return self._loaded is not None

    def check(self, placement: Placement) -> None:
        """Raises PlacementError where ranks and devices like these could not hold it."""
        loaded = self.loaded
        refuse_impossible(
            placement.quantization,
            loaded.device,
            getattr(torch, loaded.dtype),
            loaded.checkpoint.classes,
        )
        share = replace(loaded.share, tp_size=placement.tp_size, encoders=placement.encoders)
        share.check(loaded.pipeline, loaded.share)

    def reload(self, placement: Placement) -> None:
        """Lets go of the pipeline first: there may be no room for two.

        Raises:
            PlacementError: it cannot be loaded, or is no more what was loaded first; then nothing
                is held any more.
        """
        self._loaded = None
        # Graphs of compiled blocks hold their weights.
        torch._dynamo.reset()
        gc.collect()
        torch.cuda.empty_cache()
        loaded = self._load(placement)
        # What was drawn under its name is to be drawn again.
        if loaded.checkpoint.digest != self.digest:
            raise PlacementError(
                f"{loaded.checkpoint.directory}: this is not the checkpoint that was loaded first"
            )
        self._loaded = loaded
