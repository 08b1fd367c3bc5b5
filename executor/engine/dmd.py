"""Forecast by dynamic mode decomposition (Schmid 2010), as Cache-DiT applies it to cached steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from executor.engine import program
from executor.engine.forecasts import Clock

MIN_SNAPSHOTS = 4
# Singular values below this share of the largest are noise.
NOISE = 1e-4


@dataclass(frozen=True, slots=True)
class _Modes:
    """A fit: the value ``h`` snapshots after the newest is Re(shapes (growth^h * amplitudes)).

    complex128; shapes (values, modes), growth and amplitudes (modes,).
    """

    shapes: Tensor
    growth: Tensor
    amplitudes: Tensor

    def advance(self, horizon: float) -> Tensor:
        return (self.shapes @ (self.growth.pow(horizon) * self.amplitudes)).real


class Dmd:
    """Fits the linear map from each computed value to the next and applies it further on.

    Each batch item is fitted by itself, in double precision. Before there are enough computed
    values at equal distances, the forecast is a straight line.
    """

    predict_stores: ClassVar[bool] = True

    def __init__(self, settings: program.Dmd) -> None:
        self._settings = settings
        self._snapshots: list[tuple[int, Tensor]] = []
        self._slope: Tensor | None = None
        self._fit: list[_Modes] | None = None
        self._is_fitted = False
        self._clock = Clock()

    def tick(self) -> None:
        self._clock.tick()

    def update(self, value: Tensor) -> None:
        gap = self._clock.distance
        # Cache-DiT takes the slope to the value before the last one, over one gap.
        known = len(self._snapshots) >= 2 and self._clock.now > 1
        self._slope = (value - self._snapshots[-2][1]) / gap if known else None
        self._snapshots.append((self._clock.now, value))
        del self._snapshots[: -self._settings.history]
        self._clock.anchor()
        self._fit, self._is_fitted = None, False

    def predict(self) -> Tensor:
        assert self._snapshots, "nothing was computed before"
        newest = self._snapshots[-1][1]
        window = self._uniform_window()
        if len(window) < MIN_SNAPSHOTS:
            if self._slope is None:
                return newest
            return newest + self._clock.distance * self._slope
        if not self._is_fitted:
            self._fit = self._fit_window([value for _, value in window])
            self._is_fitted = True
        if self._fit is None:
            return newest
        spacing = window[-1][0] - window[-2][0]
        horizon = (self._clock.now - window[-1][0]) / spacing
        predicted = torch.stack([modes.advance(horizon) for modes in self._fit])
        predicted = predicted.to(newest.dtype).reshape(newest.shape)
        return predicted if bool(torch.isfinite(predicted).all()) else newest

    def held(self) -> Iterator[Tensor]:
        yield from (value for _, value in self._snapshots)
        if self._slope is not None:
            yield self._slope
        for modes in self._fit or ():
            yield from (modes.shapes, modes.growth, modes.amplitudes)

    def _uniform_window(self) -> list[tuple[int, Tensor]]:
        """The longest run of snapshots at equal distances that ends with the newest."""
        times = [time for time, _ in self._snapshots]
        start = max(len(times) - 2, 0)
        while start > 0 and times[start] - times[start - 1] == times[-1] - times[-2]:
            start -= 1
        return self._snapshots[start:]

    def _fit_window(self, values: list[Tensor]) -> list[_Modes] | None:
        """One fit a batch item; None where one of them is degenerate."""
        batch = values[0].shape[0] if values[0].dim() > 1 else 1
        trajectories = torch.stack([v.reshape(batch, -1) for v in values], dim=-1).double()
        fits = [self._fit_one(trajectory) for trajectory in trajectories]
        found = [fit for fit in fits if fit is not None]
        return found if len(found) == len(fits) else None

    def _fit_one(self, trajectory: Tensor) -> _Modes | None:
        """The modes of a trajectory of shape (values, snapshots), oldest first."""
        before, after = trajectory[:, :-1], trajectory[:, 1:]
        try:
            left, strengths, right = _svd(before, self._settings.svd_precision)
            rank = self._settings.rank or int((strengths > NOISE * strengths[0]).sum())
            rank = max(1, min(rank, len(strengths)))
            right = right[:rank].mH
            inverse = (1.0 / (strengths[:rank] + self._settings.ridge)).to(torch.complex128)
            reduced = (left[:, :rank].mH @ after @ right).to(torch.complex128) * inverse
            growth, directions = torch.linalg.eig(reduced)
            shapes = ((after @ right).to(torch.complex128) * inverse) @ directions
            newest = trajectory[:, -1:].to(torch.complex128)
            # A copy: the solution is the top of a tensor as long as the trajectory.
            amplitudes = torch.linalg.lstsq(shapes, newest).solution[:, 0].clone()
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            return None
        return _Modes(shapes, growth, amplitudes)


def _svd(matrix: Tensor, precision: str) -> tuple[Tensor, Tensor, Tensor]:
    """Economy decomposition; ``low`` is randomised with a fixed seed, ``high`` for CUDA only."""
    if precision == "low":
        devices = [matrix.device] if matrix.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            left, strengths, right = torch.svd_lowrank(matrix, q=matrix.shape[-1], niter=1)
        return left, strengths, right.mH
    driver = "gesvd" if precision == "high" and matrix.device.type == "cuda" else None
    left, strengths, right = torch.linalg.svd(matrix, full_matrices=False, driver=driver)
    return left, strengths, right
