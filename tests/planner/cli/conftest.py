"""Tests here may be coroutines with a planner of their own, as those of the service are."""

from __future__ import annotations

from tests.planner.service.conftest import pytest_pyfunc_call, settings

__all__ = ["pytest_pyfunc_call", "settings"]
