"""What cached steps take in place of the blocks they skip."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from executor.engine import program
from executor.engine.dmd import Dmd
from executor.engine.forecasts import FoCa, Forecast, Reuse, TaylorSeer


def _drive(forecast: Forecast, values: list[float | None]) -> list[float]:
    """Feeds one value a forward; None is a cached step. Gives the predictions of those."""
    predicted = []
    for value in values:
        forecast.tick()
        if value is None:
            predicted.append(float(forecast.predict()))
        else:
            forecast.update(torch.tensor(value, dtype=torch.float64))
    return predicted


def test_reuse_repeats_the_last_computed_value() -> None:
    assert _drive(Reuse(), [1.0, 2.0, None, None, 5.0, None]) == [2.0, 2.0, 5.0]


def test_order_zero_is_reuse() -> None:
    values = [3.0, 1.0, 4.0, 1.0, None, 5.0, None, None]
    assert _drive(TaylorSeer(0), values) == _drive(Reuse(), values)


def test_first_order_continues_a_line() -> None:
    line = [2.0 * step + 1.0 for step in range(10)]
    values: list[float | None] = [*line[:5], None, None, None]
    assert _drive(TaylorSeer(1), values) == pytest.approx(line[5:8])


def test_slopes_count_the_cached_steps_between_two_computed_ones() -> None:
    line = [2.0 * step + 1.0 for step in range(10)]
    values: list[float | None] = [*line[:4], None, None, line[6], None]
    assert _drive(TaylorSeer(1), values)[-1] == pytest.approx(line[7])


def test_no_slope_before_the_fourth_forward() -> None:
    """As in Cache-DiT: values of the first three forwards give no difference."""
    assert _drive(TaylorSeer(1), [1.0, 2.0, 3.0, None]) == [3.0]
    assert _drive(TaylorSeer(1), [1.0, 2.0, 3.0, 4.0, None]) == [5.0]


def test_orders_arrive_one_computed_step_at_a_time() -> None:
    """The second difference needs two first ones."""
    assert _drive(TaylorSeer(2), [0.0, 1.0, 4.0, 9.0, None]) == [9.0 + 5.0]
    # 16 + 7 + (7 - 5) / 2
    assert _drive(TaylorSeer(2), [0.0, 1.0, 4.0, 9.0, 16.0, None]) == [24.0]


def test_predictions_change_nothing() -> None:
    forecast = TaylorSeer(1)
    values: list[float | None] = [0.0, 1.0, 2.0, 3.0, None]
    first = _drive(forecast, values)
    assert float(forecast.predict()) == first[0]


def test_forecasts_stay_in_the_dtype_of_the_model() -> None:
    forecast = TaylorSeer(2)
    for step in range(6):
        forecast.tick()
        forecast.update(torch.full((2, 3), float(step), dtype=torch.bfloat16))
    forecast.tick()
    predicted: Tensor = forecast.predict()
    assert predicted.dtype is torch.bfloat16
    assert predicted.shape == (2, 3)


def test_foca_is_tempered_by_what_was_predicted() -> None:
    """Anchors 0 and 2: slope (2 - 0) + (2 - 0), then with the prediction in the second term."""
    first = 2 + 1 / 2 * 4
    second = 2 + 2 / 2 * ((2 - 0) + (first - 2))
    assert _drive(FoCa(), [0.0, 2.0, None, None]) == pytest.approx([first, second])


def test_foca_fades_into_the_last_value_far_away() -> None:
    predicted = _drive(FoCa(), [0.0, 0.0, 0.0, 1.0, *[None] * 40])
    assert abs(predicted[-1] - 1) < abs(predicted[2] - 1)


def _trajectory(step: int) -> Tensor:
    """Two items, each a sum of a decaying and a turning mode."""
    t = torch.tensor(float(step), dtype=torch.float64)
    basis = torch.eye(6, dtype=torch.float64)
    first = 0.9**step * basis[0] + torch.cos(0.3 * t) * basis[1] + torch.sin(0.3 * t) * basis[2]
    second = 0.7**step * basis[3] + 1.05**step * basis[4] + basis[5]
    return torch.stack([first, second])


@pytest.mark.parametrize("precision", ["low", "medium", "high"])
def test_dmd_continues_what_a_linear_map_generates(precision: str) -> None:
    forecast = Dmd(program.Dmd(history=8, ridge=0.0, svd_precision=precision))
    for step in range(8):
        forecast.tick()
        forecast.update(_trajectory(step))
    for step in range(8, 12):
        forecast.tick()
        assert torch.allclose(forecast.predict(), _trajectory(step), atol=1e-6)


def test_dmd_needs_four_values_at_equal_distances() -> None:
    forecast = Dmd(program.Dmd())
    values: list[float | None] = [0.0, 1.0, 2.0]
    assert _drive(forecast, [*values, None]) == [2.0]
    uneven = Dmd(program.Dmd())
    # With the last gap of two forwards the line goes on from there.
    predicted = _drive(uneven, [1.0, 2.0, 3.0, 4.0, None, 6.0, None])
    assert predicted[-1] == pytest.approx(6.0 + (6.0 - 3.0) / 2)


def test_dmd_falls_back_to_the_newest_value_where_nothing_can_be_fitted() -> None:
    forecast = Dmd(program.Dmd())
    for _ in range(5):
        forecast.tick()
        forecast.update(torch.full((1, 3), float("nan")))
    forecast.tick()
    assert torch.isnan(forecast.predict()).all()
