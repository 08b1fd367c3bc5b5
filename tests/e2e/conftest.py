from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executor.placement.quiet import silence_libraries
from tests.e2e.processes import Service

silence_libraries()

CACHE_YAML = """\
cache_config:
  max_warmup_steps: 4
  Fn_compute_blocks: 1
  Bn_compute_blocks: 0
  residual_diff_threshold: 0.5
  max_continuous_cached_steps: 2
  enable_taylorseer: true
"""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.executor.tiny import flux

    return flux.save(tmp_path_factory.mktemp("tiny-flux"))


@pytest.fixture
def cache_yaml(tmp_path: Path) -> Path:
    path = tmp_path / "cache.yaml"
    path.write_text(CACHE_YAML)
    return path


@pytest.fixture
def services(tmp_path: Path) -> Iterator[list[Service]]:
    """What a test starts; all of it is gone when the test ends."""
    started: list[Service] = []
    yield started
    for service in reversed(started):
        if service.process.poll() is None:
            service.kill()


@pytest.fixture
def start_planner(tmp_path: Path, services: list[Service]) -> Callable[..., Service]:
    """Starts a planner on the test's data, on a killed one's address if it is given."""

    def start(address: str | None = None) -> Service:
        arguments = ("-m", "planner", "serve", "planner", "--data", str(tmp_path / "data"))
        service = Service(tmp_path, "planner", *arguments, address=address)
        services.append(service)
        service.await_ready()
        return service

    return start


@pytest.fixture
def start_executor(
    tmp_path: Path, services: list[Service], checkpoint: Path
) -> Callable[..., Service]:
    def start(planner: Service, *options: str, name: str = "") -> Service:
        name = name or f"executor-{len(services)}"
        service = Service(
            tmp_path,
            name,
            *("-m", "executor", "--name", name),
            *("--planner", planner.address, "--model", str(checkpoint), *options),
        )
        services.append(service)
        service.await_ready()
        return service

    return start
