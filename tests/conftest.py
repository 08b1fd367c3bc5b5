"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.executor.rank_farm import RankFarm

# The same verdict on the same code, everywhere; `make fuzz` looks further.
settings.register_profile("ditplan", derandomize=True)
settings.load_profile("ditplan")


@pytest.fixture(scope="session")
def rank_farm() -> Iterator[RankFarm]:
    farm = RankFarm()
    yield farm
    farm.close()
