"""Which rank of which executor a process of a launch is."""

from __future__ import annotations

import pytest

from executor.runtime.seat import NoSeatError, Seat


def test_without_a_launcher_there_is_one_rank() -> None:
    assert Seat.of({}, None) == Seat()


def test_a_launch_is_one_executor_or_several() -> None:
    environ = {"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1"}
    assert Seat.of(environ, None) == Seat(5, 8, local_rank=1)
    assert Seat.of(environ, 4) == Seat(1, 4, group=1, groups=2, local_rank=1)
    assert Seat.of(environ, 1) == Seat(0, 1, group=5, groups=8, local_rank=1)
    assert [Seat.of(environ, size).suffix for size in (None, 4)] == ["", "-1"]


@pytest.mark.parametrize(
    ("environ", "group_size"),
    [
        ({"WORLD_SIZE": "3", "RANK": "0"}, 2),
        ({"WORLD_SIZE": "2"}, None),
        ({"WORLD_SIZE": "2", "RANK": "2"}, None),
        ({"WORLD_SIZE": "two", "RANK": "0"}, None),
        ({}, 2),
    ],
)
def test_what_does_not_fit_is_refused(environ: dict[str, str], group_size: int | None) -> None:
    with pytest.raises(NoSeatError):
        Seat.of(environ, group_size)
