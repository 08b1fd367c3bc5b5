"""Every family from prompt to picture or film, through a real planner and an executor."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from ditplan.v1 import generation_pb2
from PIL import Image
from safetensors.torch import load as load_tensors
from torch import Tensor

from executor.placement.load import load
from planner.cli.client import Client, Refusal, connect
from planner.render.record import record_document, replay_program
from tests.e2e.processes import Service
from tests.executor import tiny
from tests.executor.agent.in_process import Agent
from tests.executor.tiny.hunyuan_video_15 import shorten

STEPS, SEED, PROMPT = 6, 7, "a cat"
DIAL_SECONDS = 20.0
CONFIG = """\
cache_config:
  max_warmup_steps: 2
  Fn_compute_blocks: 1
  residual_diff_threshold: 1.0
  max_continuous_cached_steps: 2
  enable_taylorseer: true
"""


def _png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.radial_gradient("L").resize((width, height)).convert("RGB").save(file, "PNG")
    return file.getvalue()


PICTURE = _png(64, 32)


@dataclass(frozen=True)
class Case:
    """A pipeline; what a request says beside prompt, steps and seed; and the call it stands for."""

    pipeline_class: str
    request: Mapping[str, Any]
    call: Mapping[str, Any]
    columns: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)


SMALL = {"height": 32, "width": 32}
FILM = {**SMALL, "num_frames": 5}
AWAY = {"negative_prompt": "blue"}
CFG = {"guidance_scale": 3.0, **AWAY}
TRUE_CFG = {"true_cfg_scale": 3.0, **AWAY}
IMAGES = [generation_pb2.InputImage(data=PICTURE)]
SHOWN = Image.open(io.BytesIO(PICTURE))
CASES = {
    "flux": Case(
        "FluxPipeline", {**SMALL, "guidance_scale": 2.0}, {**SMALL, "guidance_scale": 2.0}
    ),
    "flux2": Case(
        "Flux2Pipeline", {**SMALL, "guidance_scale": 2.0}, {**SMALL, "guidance_scale": 2.0}, 2
    ),
    "klein": Case(
        "Flux2KleinPipeline", {**SMALL, "guidance_scale": 3.0}, {**SMALL, "guidance_scale": 3.0}, 4
    ),
    "klein-distilled": Case("Flux2KleinPipeline", SMALL, SMALL, 2, options={"is_distilled": True}),
    "qwen-image": Case("QwenImagePipeline", {**SMALL, **CFG}, {**SMALL, **TRUE_CFG}, 2),
    "qwen-image-unguided": Case("QwenImagePipeline", SMALL, SMALL),
    "qwen-image-edit": Case(
        "QwenImageEditPipeline",
        {**CFG, "height": 128, "width": 64, "images": IMAGES},
        {**TRUE_CFG, "height": 128, "width": 64, "image": SHOWN},
        2,
    ),
    "qwen-image-edit-plus": Case(
        "QwenImageEditPlusPipeline",
        {"height": 128, "width": 64, "images": IMAGES * 2},
        {"height": 128, "width": 64, "image": [SHOWN, SHOWN]},
    ),
    "wan-2.1": Case("WanPipeline", {**FILM, **CFG}, {**FILM, **CFG}, 2),
    "wan-2.1-unguided": Case(
        "WanPipeline", {**FILM, "guidance_scale": 1.0}, {**FILM, "guidance_scale": 1.0}
    ),
    "wan-2.2": Case("WanPipeline", {**FILM, **CFG}, {**FILM, **CFG}, 4, {"boundary_ratio": 0.875}),
    "wan-2.1-picture": Case(
        "WanImageToVideoPipeline",
        {**FILM, **CFG, "images": IMAGES},
        {**FILM, **CFG, "image": SHOWN},
        2,
    ),
    "z-image": Case(
        "ZImagePipeline", {**SMALL, "guidance_scale": 0}, {**SMALL, "guidance_scale": 0}
    ),
    "z-image-guided": Case("ZImagePipeline", {**SMALL, **CFG}, {**SMALL, **CFG}),
    "hunyuan-video": Case(
        "HunyuanVideoPipeline", {**FILM, "guidance_scale": 4.0}, {**FILM, "guidance_scale": 4.0}, 2
    ),
    "hunyuan-video-1.5": Case("HunyuanVideo15Pipeline", {**FILM, **AWAY}, {**FILM, **AWAY}, 2),
    "ltx": Case("LTXPipeline", {**FILM, **CFG}, {**FILM, **CFG}),
    "hunyuan-video-1.5-unguided": Case(
        "HunyuanVideo15Pipeline",
        {**FILM, "guidance_scale": 1.0},
        FILM,
        options={"guidance_scale": 1.0},
    ),
}


@pytest.fixture(scope="module")
def planner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("planner")
    service = Service(
        directory, "planner", "-m", "planner", "serve", "planner", "--data", str(directory / "data")
    )
    service.await_ready()
    yield service
    service.kill()


@pytest.mark.parametrize("name", CASES)
def test_a_family_runs_end_to_end(name: str, tmp_path: Path, planner: Service) -> None:
    case = CASES[name]
    tiny.save(tmp_path / name, case.pipeline_class, **case.options)
    loaded = load(str(tmp_path / name))
    if case.pipeline_class == "HunyuanVideo15Pipeline":
        shorten(loaded.pipeline)
    alone = _called(loaded.pipeline, case)
    with _executor(loaded, planner.address), connect(planner.address) as client:

        def run(**source: Any) -> tuple[generation_pb2.Generation, dict[str, bytes]]:
            spec = generation_pb2.GenerationSpec(
                model=str(tmp_path / name),
                prompt=PROMPT,
                num_inference_steps=STEPS,
                seed=SEED,
                save_latents=True,
                **{**case.request, **source},
            )
            return _generated(client, spec)

        uncached, files = run()
        assert torch.equal(_latents(files), alone)
        assert len(uncached.record.program.columns) == case.columns
        _check_result(case, files)
        assert not any(image.data for image in uncached.spec.images)

        cached, files = run(config=CONFIG)
        document = record_document(cached)
        kinds = {op["kind"] for step in document["steps"] for op in step["ops"]}
        assert kinds == {"FULL", "CACHED"}
        assert not torch.equal(_latents(files), alone)

        _, again = run(program=replay_program(document))
        assert again == files


def _called(pipeline: Any, case: Case) -> Tensor:
    """The final latents of diffusers alone, as its scheduler leaves them."""
    found: list[Tensor] = []
    step = pipeline.scheduler.step

    def watched(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        found.append(result[0])
        return result

    pipeline.scheduler.step = watched
    limit = {"max_sequence_length": 24} if case.pipeline_class == "FluxPipeline" else {}
    pipeline(
        prompt=PROMPT,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(SEED),
        **limit,
        **case.call,
    )
    del pipeline.scheduler.step
    assert len(found) == STEPS
    return found[-1].float()


@contextmanager
def _executor(loaded: Any, address: str) -> Iterator[None]:
    agent = Agent(loaded, address)
    agent.thread.start()
    try:
        yield
    finally:
        agent.stop()
    assert agent.ended_with is None


def _generated(
    client: Client, spec: generation_pb2.GenerationSpec
) -> tuple[generation_pb2.Generation, dict[str, bytes]]:
    """The generation once it has ended well, with its artifacts by name."""
    deadline = time.monotonic() + DIAL_SECONDS
    while True:
        try:
            *_, last = client.generate(spec)
            break
        except Refusal as refusal:
            # The executor has yet to ask for work.
            waits = refusal.reason in ("NO_MATCHING_EXECUTOR", "UNKNOWN_MODEL")
            if not waits or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    finished = last.finished
    assert finished.state == generation_pb2.GENERATION_STATE_SUCCEEDED, finished.failure
    return finished, {a.name: client.read(finished.name, a) for a in finished.artifacts}


def _latents(files: Mapping[str, bytes]) -> Tensor:
    return load_tensors(files["latents.safetensors"])["latents"]


def _check_result(case: Case, files: Mapping[str, bytes]) -> None:
    size = (case.request["width"], case.request["height"])
    if "num_frames" not in case.request:
        assert Image.open(io.BytesIO(files["image.png"])).size == size
        return
    with av.open(io.BytesIO(files["video.mp4"])) as film:
        frames = [frame.to_image() for frame in film.decode(video=0)]
    assert [frame.size for frame in frames] == [size] * case.request["num_frames"]
