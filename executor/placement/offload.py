"""Components that wait in the host's memory and come to the device when they are called."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from accelerate.utils import send_to_device
from torch import nn

HOST = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Offload:
    """What waits: transformers, text encoders, VAE; or the transformers' blocks, each by itself."""

    dit: bool = False
    text_encoder: bool = False
    vae: bool = False
    dit_layerwise: bool = False

    def components(self, names: Collection[str]) -> tuple[str, ...]:
        """Those of the named components that wait as a whole, sorted."""
        kinds = {"transformer": self.dit, "text_encoder": self.text_encoder, "vae": self.vae}
        chosen = tuple(kind for kind, waits in kinds.items() if waits)
        return tuple(sorted(name for name in names if name.startswith(chosen)))

    def faults(self, device: torch.device, *, compiled: bool) -> list[str]:
        """What of it cannot work, each in words."""
        options = {
            "--dit-cpu-offload": self.dit,
            "--text-encoder-cpu-offload": self.text_encoder,
            "--vae-cpu-offload": self.vae,
            "--dit-layerwise-offload": self.dit_layerwise,
        }
        found = []
        if device.type == "cpu":
            asked = [option for option, is_on in options.items() if is_on]
            found = [f"{option}: the device is the CPU itself" for option in asked]
        if self.dit and self.dit_layerwise:
            found.append("--dit-layerwise-offload: --dit-cpu-offload moves the whole already")
        if self.dit_layerwise and compiled:
            found.append("--dit-layerwise-offload: blocks that move cannot be compiled")
        return found


RESIDENT = Offload()


def place(pipeline: Any, device: torch.device, offload: Offload) -> None:
    """Brings every component to the device or has it wait for its turn.

    Of those that wait as a whole at most one is on the device: another component's call sends it
    back. A block that waits by itself comes for its call alone, so that blocks which a cache skips
    never come.
    """
    modules = {n: m for n, m in pipeline.components.items() if isinstance(m, nn.Module)}
    waiting = offload.components(modules)
    turns = _Turns(device)
    for name, module in modules.items():
        in_layers = offload.dit_layerwise and name.startswith("transformer")
        # There may be no room for the whole of it, not even for a moment.
        module.to(HOST if name in waiting or in_layers else device)
        if in_layers:
            # diffusers' own; of one block a group, so that no group is half skipped.
            module.enable_group_offload(  # type: ignore[operator]
                onload_device=device,
                offload_device=HOST,
                offload_type="block_level",
                num_blocks_per_group=1,
            )
            # Its arguments, diffusers brings to the device.
            module.register_forward_pre_hook(lambda *_: turns.next(None))
        elif waiting:
            add_hook_to_module(module, _Turn(turns, waits=name in waiting))


class _Turns:
    """Which of the waiting components is on the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._current: nn.Module | None = None

    def next(self, module: nn.Module | None) -> None:
        if module is self._current:
            return
        if self._current is not None:
            self._current.to(HOST)
        if module is not None:
            module.to(self.device)
        self._current = module


class _Turn(ModelHook):  # type: ignore[misc]
    """Sees to it that a component is on the device, and none that waits beside it.

    diffusers reads ``execution_device``, and calls `pre_forward` before methods of a VAE, too.
    """

    def __init__(self, turns: _Turns, *, waits: bool) -> None:
        self.execution_device = turns.device
        self._turns = turns
        self._waits = waits

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        self._turns.next(module if self._waits else None)
        return send_to_device(args, self.execution_device), send_to_device(
            kwargs, self.execution_device
        )
