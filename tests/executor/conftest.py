from __future__ import annotations

from pathlib import Path

import pytest
import torch

from executor.placement.load import LoadedPipeline, load
from executor.placement.quiet import silence_libraries

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
