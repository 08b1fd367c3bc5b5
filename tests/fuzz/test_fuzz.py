"""The fuzz run, in small; ``make fuzz`` is the long one."""

from __future__ import annotations

import random
from typing import Any

from planner.compile.compiler import compile_config
from tests.fuzz.campaign import examples, fuzz
from tests.fuzz.mutations import mutated


def test_no_damaged_config_does_harm() -> None:
    verdict = fuzz(200, seed=7, max_seconds=10)
    assert verdict.findings == []
    assert verdict.compiled + verdict.refused == 200
    assert verdict.compiled > 5
    assert verdict.refused > 10


def test_a_seed_gives_the_same_texts() -> None:
    first, again = ([mutated(examples(), random.Random(3)) for _ in range(9)] for _ in range(2))
    assert first == again


def test_a_crash_is_found_with_its_text() -> None:
    def fragile(text: bytes, *rest: Any) -> Any:
        if b"cache_config" in text:
            raise KeyError("cache_config")
        return compile_config(text, *rest)

    found = fuzz(50, seed=7, compile=fragile).findings
    assert found
    assert all(b"cache_config" in text and "KeyError" in cause for text, cause in found)
