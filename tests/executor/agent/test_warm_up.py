"""The first steps of a plan, run for every size before work is taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from ditplan.v1 import plan_pb2
from structlog.testing import capture_logs

from executor.agent.settings import Settings, Size
from executor.agent.warm_up import warm_up
from executor.engine import run as engine
from executor.errors import PlacementError
from executor.runtime.held import Held
from executor.runtime.one_rank import OneRank
from executor.runtime.seat import Seat
from planner.codec import program_to_proto
from planner.compile.compiler import compile_config
from planner.compile.request import Request
from planner.models.resolve import from_directory
from tests.executor import tiny

CACHE = "cache_config: {max_warmup_steps: 1, residual_diff_threshold: 2, Fn_compute_blocks: 1}"
STEPS = 6
FAMILIES: list[tuple[str, dict[str, Any], Size]] = [
    ("FluxPipeline", {}, Size(32, 64)),
    ("QwenImageEditPipeline", {}, Size(64, 128)),
    ("WanPipeline", {}, Size(32, 32, 5)),
    # Which of its two transformers runs in a step depends on how many steps there are.
    ("WanPipeline", {"boundary_ratio": 0.5}, Size(32, 32, 5)),
    ("WanImageToVideoPipeline", {}, Size(32, 32, 5)),
    ("HunyuanVideo15Pipeline", {}, Size(32, 32, 5)),
]


def _settings(directory: Path, *sizes: Size, **request: Any) -> Settings:
    facts = from_directory(directory)
    compilation = compile_config(CACHE, facts, Request(STEPS, **request))
    assert compilation.program is not None, compilation.diagnostics
    return Settings(
        planner="",
        model=str(directory),
        name="here",
        served_name=None,
        device="cpu",
        dtype="auto",
        seat=Seat(),
        tp_size=1,
        extra_parallel_modules=(),
        rank_timeout=1,
        plan=program_to_proto(compilation.program),
        warmup=sizes,
    )


def _ranks(settings: Settings) -> OneRank:
    log = settings.log()
    return OneRank(Held(lambda placement: settings.load(placement, log), settings.placement()))


class _Runs:
    """The programs of all runs, the steps that each ended, and whether it drew anything."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.programs: list[plan_pb2.Program] = []
        self.steps: list[int] = []
        run = engine.run

        def counted(pipeline: Any, program: Any, spec: Any, **options: Any) -> Any:
            self.steps.append(0)
            on_step = options.pop("on_step")

            def step(outcome: Any) -> None:
                self.steps[-1] += 1
                on_step(outcome)

            return run(pipeline, program, spec, on_step=step, **options)

        monkeypatch.setattr(engine, "run", counted)


@pytest.mark.parametrize(("name", "options", "size"), FAMILIES)
def test_two_steps_of_every_family(
    name: str, options: dict[str, Any], size: Size, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.build(name, **options).save_pretrained(tmp_path)
    settings = _settings(
        tmp_path, size, height=size.height, width=size.width, num_frames=size.num_frames
    )
    ranks, runs = _ranks(settings), _Runs(monkeypatch)
    with capture_logs() as logged:
        warm_up(ranks, settings, is_cancelled=lambda: False, log=structlog.get_logger())
    assert [(entry["event"], entry["size"]) for entry in logged] == [("warmed_up", str(size))]
    assert runs.steps == [2]


def test_every_size_and_no_more_once_it_is_cancelled(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _settings(checkpoint, Size(32, 32), Size(64, 32), height=32, width=32)
    ranks, runs = _ranks(settings), _Runs(monkeypatch)
    log = structlog.get_logger()
    warm_up(ranks, settings, is_cancelled=lambda: False, log=log)
    assert runs.steps == [2, 2]
    runs.steps.clear()
    with capture_logs() as logged:
        warm_up(ranks, settings, is_cancelled=lambda: bool(runs.steps), log=log)
    assert runs.steps == [0]
    assert logged == []


def test_a_run_that_fails_names_its_size(checkpoint: Path) -> None:
    settings = _settings(checkpoint, Size(32, 32), height=32, width=32)
    assert settings.plan is not None
    other = plan_pb2.Program()
    other.CopyFrom(settings.plan)
    other.columns[0].block_lists[:] = ["blocks"]
    with pytest.raises(PlacementError, match=r"32x32: .* no block list blocks"):
        warm_up(
            _ranks(settings),
            replace(settings, plan=other),
            is_cancelled=lambda: False,
            log=structlog.get_logger(),
        )
