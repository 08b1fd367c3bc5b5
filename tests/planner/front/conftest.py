"""As in the tests of the service: a test may be a coroutine, and times are short."""

from __future__ import annotations

from tests.planner.service.conftest import pytest_pyfunc_call, settings

__all__ = ["pytest_pyfunc_call", "settings"]
