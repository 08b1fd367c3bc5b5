"""The timesteps of a flow-matching scheduler, as diffusers computes them.

They decide where one transformer of a pipeline hands over to the next, so the arithmetic follows
diffusers' to the last bit: double precision where numpy has it, single where torch has it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PLAIN = (
    "use_dynamic_shifting",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "invert_sigmas",
    "shift_terminal",
)


@dataclass(frozen=True, slots=True)
class UniPC:
    """``UniPCMultistepScheduler`` with flow sigmas."""

    shift: float
    num_train_timesteps: int = 1000

    def timesteps(self, steps: int) -> list[float]:
        sigmas = [
            self.shift * s / (1 + (self.shift - 1) * s)
            for s in _linspace(1, 1 / self.num_train_timesteps, steps + 1)[:-1]
        ]
        if abs(sigmas[0] - 1) < 1e-6:
            sigmas[0] -= 1e-6
        return [float(int(sigma * self.num_train_timesteps)) for sigma in sigmas]


@dataclass(frozen=True, slots=True)
class FlowMatchEuler:
    """``FlowMatchEulerDiscreteScheduler`` with a fixed shift."""

    shift: float
    num_train_timesteps: int = 1000

    def timesteps(self, steps: int) -> list[float]:
        train = self.num_train_timesteps
        first, last = (self._bound(t) * train for t in (train, 1))
        return [
            _single(_single(self.shift * s / (1 + (self.shift - 1) * s)) * train)
            for s in (t / train for t in _linspace(first, last, steps))
        ]

    def _bound(self, timestep: int) -> float:
        """A sigma of the scheduler's own table, which torch keeps in single precision."""
        sigma = _single(timestep / self.num_train_timesteps)
        divisor = _single(1 + _single(_single(self.shift - 1) * sigma))
        return _single(_single(_single(self.shift) * sigma) / divisor)


Schedule = UniPC | FlowMatchEuler


def read_schedule(config: Mapping[str, Any]) -> Schedule:
    """The schedule of a ``scheduler_config.json``.

    Raises:
        ValueError: it is none whose timesteps are known here.
    """
    name = config.get("_class_name")
    for option in _PLAIN:
        if config.get(option):
            raise ValueError(f"{option} is not supported for {name}")
    if name == "UniPCMultistepScheduler":
        if config.get("use_flow_sigmas") is not True:
            raise ValueError("UniPCMultistepScheduler is supported with use_flow_sigmas only")
        return UniPC(_shift(config, "flow_shift"), _train(config))
    if name == "FlowMatchEulerDiscreteScheduler":
        return FlowMatchEuler(_shift(config, "shift"), _train(config))
    raise ValueError(f"the timesteps of scheduler {name!r} are not known")


def before_boundary(schedule: Schedule, ratio: float, steps: int) -> int:
    """How many of the steps a pipeline gives to its first transformer."""
    boundary = _single(ratio * schedule.num_train_timesteps)
    return sum(t >= boundary for t in schedule.timesteps(steps))


def _shift(config: Mapping[str, Any], key: str) -> float:
    value = config.get(key, 1.0)
    if type(value) not in (int, float) or not 0 < value <= 1000:
        raise ValueError(f"{key} is {str(value)[:40]!r}, not a number above 0")
    return float(value)


def _train(config: Mapping[str, Any]) -> int:
    value = config.get("num_train_timesteps", 1000)
    if type(value) is not int or not 1 <= value <= 100_000:
        raise ValueError(f"num_train_timesteps is {str(value)[:40]!r}, not a number from 1")
    return value


def _linspace(start: float, stop: float, num: int) -> list[float]:
    """numpy's, to the last bit."""
    if num == 1:
        return [start]
    step = (stop - start) / (num - 1)
    return [*(i * step + start for i in range(num - 1)), stop]


def _single(value: float) -> float:
    """The nearest number of single precision."""
    return float(struct.unpack("f", struct.pack("f", value))[0])
