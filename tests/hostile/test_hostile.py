"""The hostile requests, in small; ``make hostile`` sends thousands."""

from __future__ import annotations

import random
from pathlib import Path

from tests.e2e.processes import Service
from tests.hostile.campaign import attack
from tests.hostile.requests import hostile, methods


def test_every_request_gets_its_status_and_the_service_goes_on(tmp_path: Path) -> None:
    arguments = ("-m", "planner", "serve", "planner", "--data", str(tmp_path / "data"))
    planner = Service(tmp_path, "planner", *arguments)
    try:
        planner.await_ready()
        verdict = attack(planner.address, planner.process.pid, requests=400, seed=5)
        assert verdict.findings == []
        assert "call_failed" not in planner.log
    finally:
        planner.kill()
    # Some get as far as a good request does.
    assert verdict.codes["OK"] > 20
    assert verdict.codes["INVALID_ARGUMENT"] > 100


def test_a_seed_gives_the_same_requests() -> None:
    known = methods()
    first, again = ([hostile(random.Random(3), known) for _ in range(20)] for _ in range(2))
    assert first == again
