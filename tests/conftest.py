"""What holds for every test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.executor.rank_farm import RankFarm

# The same verdict on the same code, everywhere, however busy; `make fuzz` looks further.
settings.register_profile("ditplan", derandomize=True, deadline=None)
settings.load_profile("ditplan")

# What is compared bit for bit is computed by the CPU, on any machine; `make gpu` looks at a GPU.
if "DITPLAN_TEST_GPU" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session")
def rank_farm() -> Iterator[RankFarm]:
    farm = RankFarm()
    yield farm
    farm.close()
