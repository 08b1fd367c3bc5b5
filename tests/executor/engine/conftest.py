from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.executor.tiny import flux


@pytest.fixture(scope="session")
def pipeline() -> Any:
    return flux.build()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
