"""A leased run from its program to its outcome, over a real socket."""

from __future__ import annotations

import io
import time

import grpc
import pytest
import torch
from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.identity import plan_id
from ditplan.v1 import generation_pb2, plan_pb2
from PIL import Image
from safetensors.torch import load as load_tensors

from executor.engine import run as engine
from executor.placement.load import LoadedPipeline
from executor.runtime.failures import ExecutorFailedError
from tests.executor.agent.in_process import Agent, SlowSteps
from tests.executor.agent.scripted_planner import Job, ScriptedPlanner, default_spec
from tests.executor.programs import program

WAIT = 30


def test_a_run_reports_every_step_and_stores_its_picture(
    agent: Agent, planner: ScriptedPlanner
) -> None:
    job = planner.offer(Job(program("FFCFC"), default_spec(save_latents=True)))
    assert job.over.wait(WAIT)
    assert job.failure is None
    assert job.completion is not None
    assert 0 < job.completion.denoise_seconds < job.completion.total_seconds
    assert len(job.completion.cache_bytes) == 1
    assert job.completion.cache_bytes[0] > 0
    assert [step.step for step in job.steps] == [0, 1, 2, 3, 4]
    full, cached = plan_pb2.OP_KIND_FULL, plan_pb2.OP_KIND_CACHED
    assert [step.ops[0].kind for step in job.steps] == [full, full, cached, full, cached]
    assert job.media_types["image.png"] == "image/png"
    picture = Image.open(io.BytesIO(job.artifacts["image.png"]))
    assert picture.size == (32, 32)
    assert not picture.info
    latents = load_tensors(job.artifacts["latents.safetensors"])["latents"]
    assert latents.dtype == torch.float32
    assert agent.begun == [(job.name, plan_id(job.program))]


def test_latents_are_kept_only_when_asked_for(agent: Agent, planner: ScriptedPlanner) -> None:
    job = planner.offer(Job(program("FC")))
    assert job.over.wait(WAIT)
    assert list(job.artifacts) == ["image.png"]


def test_the_same_lease_twice_gives_the_same_bytes(agent: Agent, planner: ScriptedPlanner) -> None:
    spec = default_spec(save_latents=True)
    jobs = [planner.offer(Job(program("FFAAC"), spec, name=f"generations/{i}")) for i in range(2)]
    assert all(job.over.wait(WAIT) for job in jobs)
    assert jobs[0].artifacts == jobs[1].artifacts


def test_reports_are_coalesced_and_the_first_comes_at_once(
    agent: Agent, planner: ScriptedPlanner, slow_steps: SlowSteps
) -> None:
    slow_steps.seconds = 0.01
    job = planner.offer(Job(program("F" * 60)))
    assert job.over.wait(WAIT)
    assert [step.step for step in job.steps] == list(range(60))
    first, *others = job.reports
    assert first[1] == 1
    seconds = job.reports[-1][0] - first[0]
    assert len(others) <= seconds / 0.1 + 2
    assert len(others) >= 3


def test_heartbeats_fill_long_steps(
    agent: Agent, planner: ScriptedPlanner, slow_steps: SlowSteps
) -> None:
    slow_steps.seconds = 1.2
    job = planner.offer(Job(program("F")))
    assert job.over.wait(WAIT)
    assert job.heartbeats >= 2


def test_a_cancelled_run_ends_within_a_step(
    agent: Agent, planner: ScriptedPlanner, slow_steps: SlowSteps
) -> None:
    slow_steps.seconds = 0.1
    cancelled_at: list[float] = []

    def cancel(
        request: dispatch_pb2.RunLeaseRequest, number: int
    ) -> dispatch_pb2.RunLeaseResponse | None:
        if request.HasField("step_reports") and not cancelled_at:
            cancelled_at.append(time.monotonic())
            return dispatch_pb2.RunLeaseResponse(cancel=dispatch_pb2.Cancel(reason="enough"))
        return None

    job = planner.offer(Job(program("F" * 50), on_request=cancel))
    assert job.over.wait(WAIT)
    assert job.failure is not None
    assert (job.failure.code, job.failure.message) == ("CANCELLED", "enough")
    assert not job.failure.retryable
    assert not job.artifacts
    # The forward that was under way may end, and one more may have begun meanwhile.
    assert sum(began > cancelled_at[0] for began in slow_steps.began) <= 1
    next_job = planner.offer(Job(program("FC"), name="generations/2"))
    assert next_job.over.wait(WAIT)
    assert next_job.completion is not None


def test_a_damaged_plan_is_not_run(agent: Agent, planner: ScriptedPlanner) -> None:
    job = planner.offer(Job(program("FFCFC"), plan_id="0" * 64))
    assert job.over.wait(WAIT)
    assert job.failure is not None
    assert job.failure.code == "DATA_LOSS"
    assert "not " + "0" * 64 in job.failure.message
    assert not job.failure.retryable
    assert not job.steps


def _unknown_kind(message: plan_pb2.Program) -> None:
    message.ops[0].kind = 77  # type: ignore[assignment]


def _more_blocks(message: plan_pb2.Program) -> None:
    message.model.targets[0].block_lists[0].num_blocks = 19


def _two_ranks(message: plan_pb2.Program) -> None:
    message.topology.world_size = 2


def _quantized(message: plan_pb2.Program) -> None:
    message.placement.quant_type = "int8_weight_only"


def _flash(message: plan_pb2.Program) -> None:
    message.attention_backend = "flash"


def _merging(message: plan_pb2.Program) -> None:
    message.attention_backend = "_native_math"
    message.topology.ring_size = 2
    message.topology.ring_rotate_method = "p2p"


def _no_such_blocks(message: plan_pb2.Program) -> None:
    message.columns[0].block_lists[0] = "blocks"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_unknown_kind, "program.ops[0].kind: 77"),
        (_more_blocks, "19 transformer.transformer_blocks, here are 2"),
        (_two_ranks, "2 ranks"),
        (_quantized, "int8_weight_only"),
        (_flash, "attention backend flash, which this executor cannot run: "),
        (_merging, "allgather needs none"),
        (_no_such_blocks, "no block list blocks"),
    ],
)
def test_what_this_executor_cannot_run_is_refused(
    agent: Agent, planner: ScriptedPlanner, change: object, words: str
) -> None:
    message = program("FFCFC")
    change(message)  # type: ignore[operator]
    job = planner.offer(Job(message))
    assert job.over.wait(WAIT)
    assert job.failure is not None
    assert job.failure.code == "FAILED_PRECONDITION"
    assert words in job.failure.message
    assert not job.failure.retryable
    assert not job.steps


def test_a_failed_device_hands_the_run_back_and_ends_the_executor(
    agent: Agent, planner: ScriptedPlanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of CUDA stays with the process: every later run would fail, too."""

    def broken(*arguments: object, **options: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal access\nSearch for ...")

    monkeypatch.setattr(engine, "run", broken)
    job = planner.offer(Job(program("FC")))
    assert job.over.wait(WAIT)
    assert job.failure is not None
    assert (job.failure.code, job.failure.retryable) == ("UNAVAILABLE", True)
    assert job.failure.message == "the device failed: CUDA error: an illegal access"
    agent.thread.join(WAIT)
    assert isinstance(agent.ended_with, ExecutorFailedError)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "RESOURCE_EXHAUSTED", "CUDA out of memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 TB"),
            "RESOURCE_EXHAUSTED",
            "8 TB",
        ),
        (KeyError("left"), "INTERNAL", "KeyError: 'left'"),
    ],
)
def test_a_run_that_raises_is_reported_and_the_next_one_runs(
    agent: Agent,
    planner: ScriptedPlanner,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: str,
    words: str,
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(engine, "run", broken)
        job = planner.offer(Job(program("FC")))
        assert job.over.wait(WAIT)
    assert job.failure is not None
    assert job.failure.code == code
    assert words in job.failure.message
    assert not job.failure.retryable
    next_job = planner.offer(Job(program("FC"), name="generations/2"))
    assert next_job.over.wait(WAIT)
    assert next_job.completion is not None


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.RESOURCE_EXHAUSTED]
)
def test_a_result_that_is_not_taken_fails_the_run(
    agent: Agent, planner: ScriptedPlanner, code: grpc.StatusCode
) -> None:
    job = planner.offer(Job(program("FC"), upload_status=[code]))
    assert job.over.wait(WAIT)
    assert job.failure is not None
    assert job.failure.code == code.name
    assert "image.png" in job.failure.message


def test_an_upload_that_breaks_is_tried_again(agent: Agent, planner: ScriptedPlanner) -> None:
    job = Job(program("FC"), upload_status=[grpc.StatusCode.UNAVAILABLE])
    planner.offer(job)
    assert job.over.wait(WAIT)
    assert job.completion is not None


def test_an_upload_to_a_full_disk_is_tried_again(agent: Agent, planner: ScriptedPlanner) -> None:
    full = [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2
    job = planner.offer(Job(program("FC"), upload_status=full, retry_later=True))
    assert job.over.wait(WAIT)
    assert job.completion is not None
    assert list(job.artifacts) == ["image.png"]


def test_what_arrived_damaged_is_sent_again(agent: Agent, planner: ScriptedPlanner) -> None:
    job = planner.offer(Job(program("FC"), damaged_uploads=1))
    assert job.over.wait(WAIT)
    assert job.completion is not None
    assert job.chunk_sizes == [len(job.artifacts["image.png"])] * 2


def test_a_picture_is_kept_in_the_format_that_is_asked_for(
    agent: Agent, planner: ScriptedPlanner
) -> None:
    jobs = [
        planner.offer(Job(program("FC"), name=f"generations/{number}", spec=spec))
        for number, spec in enumerate(
            (default_spec(), default_spec(image_format=generation_pb2.IMAGE_FORMAT_WEBP))
        )
    ]
    assert all(job.over.wait(WAIT) for job in jobs)
    png, webp = (Image.open(io.BytesIO(*job.artifacts.values())) for job in jobs)
    assert (png.format, webp.format) == ("PNG", "WEBP")
    assert jobs[1].media_types == {"image.webp": "image/webp"}
    assert webp.convert("RGB").tobytes() == png.convert("RGB").tobytes()


def test_the_announcement_says_what_is_served(
    agent: Agent, planner: ScriptedPlanner, loaded: LoadedPipeline
) -> None:
    job = planner.offer(Job(program("FC")))
    assert job.over.wait(WAIT)
    executor = planner.asked[0].executor
    assert (executor.name, executor.model, executor.world_size) == ("here", "tiny", 1)
    assert (executor.device, executor.dtype) == ("cpu", "float32")
    paths = [config.path for config in executor.component_configs]
    assert "model_index.json" in paths
    assert "transformer/config.json" in paths
    assert not executor.placement.quant_type
