"""Builds a pipeline from its own seed, whatever the random state around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def seeded(seed: int, make: Callable[[], Any]) -> Any:
    """What ``make`` makes, with silent progress bars; leaves torch's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = make()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
