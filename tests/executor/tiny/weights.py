"""Seeded weights in which every block matters: none of a model's parameters is left zero."""

from __future__ import annotations

from math import sqrt
from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


@torch.no_grad()
def drawn(model: Model, *, gain: float = 1.0) -> Model:
    """The model, ready for inference, with all of its parameters drawn anew.

    Layers keep the variance of their input times ``gain`` squared, norms scale by about one.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=gain / sqrt(parameter[0].numel()))
        elif name.endswith("weight"):
            parameter.normal_(mean=1.0, std=0.1)
        else:
            parameter.normal_(std=0.1)
    return model.eval()
