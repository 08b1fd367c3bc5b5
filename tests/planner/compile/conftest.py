from __future__ import annotations

import pytest

from planner.models.facts import ModelFacts
from planner.models.resolve import from_name


@pytest.fixture(scope="session")
def flux() -> ModelFacts:
    return from_name("black-forest-labs/FLUX.1-dev")
