"""The state of a training, kept on disk so that it can go on or be exported at any time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn
from torch.optim import Optimizer

from training.transformer import new_transformer

_KEEP = 0.998


class Average:
    """A moving average of a model's weights, which draws better than the last ones."""

    def __init__(self, model: nn.Module) -> None:
        self.weights = {name: value.detach().clone() for name, value in model.named_parameters()}

    def update(self, model: nn.Module, step: int) -> None:
        """Moves towards the model's weights, faster in the first steps."""
        share = 1 - min(_KEEP, (1 + step) / (10 + step))
        current: list[Tensor] = [value.detach() for value in model.parameters()]
        torch._foreach_lerp_(list(self.weights.values()), current, share)


@dataclass
class State:
    """Everything a training needs to go on."""

    model: FluxTransformer2DModel
    optimizers: list[Optimizer]
    average: Average
    step: int = 0
    elapsed: float = 0.0
    """Seconds trained so far."""

    def save(self, path: Path) -> None:
        """Writes the state in one go: a killed training leaves the last whole one behind."""
        partial = path.with_suffix(".partial")
        content = {
            "model": dict(self.model.named_parameters()),
            "average": self.average.weights,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "elapsed": self.elapsed,
        }
        torch.save(content, partial)
        partial.replace(path)

    def restore(self, path: Path) -> None:
        """Takes over what `save` wrote."""
        content = torch.load(path)
        self.model.load_state_dict(content["model"])
        self.average.weights = content["average"]
        for optimizer, saved in zip(self.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.elapsed = content["step"], content["elapsed"]


def averaged_transformer(path: Path) -> FluxTransformer2DModel:
    """The transformer of a checkpoint, finished or not, with averaged weights."""
    model = new_transformer()
    model.load_state_dict(torch.load(path)["average"])
    model.eval()
    return model
