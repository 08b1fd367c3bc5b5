from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from executor.placement.load import LoadedPipeline, load
from executor.placement.quiet import silence_libraries
from tests.executor.rank_farm import RankFarm

silence_libraries()
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny FLUX checkpoint; to be copied by whoever changes it."""
    from tests.executor.tiny import flux

    return flux.save(tmp_path_factory.mktemp("tiny-flux"))


@pytest.fixture(scope="session")
def loaded(checkpoint: Path) -> LoadedPipeline:
    return load(str(checkpoint), served_name="tiny")


@pytest.fixture(scope="session")
def rank_farm() -> Iterator[RankFarm]:
    farm = RankFarm()
    yield farm
    farm.close()
