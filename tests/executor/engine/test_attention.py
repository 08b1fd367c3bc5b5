"""A run attends with the backend that its program names, and with no other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

from executor.engine.program import Program
from executor.engine.run import RunSpec, run
from executor.placement.load import LoadedPipeline
from tests.executor.engine.programs import uncached
from tests.executor.engine.whole_runs import CASES, Run, built, program_of, run_of

# Every family, two transformers, and attention to a picture.
NAMES = (
    "flux",
    "flux2",
    "qwen-image",
    "wan-2.2",
    "wan-2.1-picture",
    "z-image-guided",
    "hunyuan-video",
    "hunyuan-video-1.5-plain",
    "ltx",
)
MASKED = ("hunyuan-video", "hunyuan-video-1.5-plain", "ltx")
# The picture's transformer expects prompts of the usual length.
CHANGES = {"wan-2.1-picture": {"max_sequence_length": 512}}
SPEC = RunSpec("a cat", 32, 32, seed=3)


def _guided(name: str) -> bool:
    return CASES[name].guided is not None


def _program(name: str) -> Program:
    return program_of(name, _guided(name), "1010", fn=1, bn=1)


def _run(name: str, backend: str) -> Run:
    program = replace(_program(name), attention_backend=backend)
    return run_of(built(name), name, _guided(name), program, **CHANGES.get(name, {}))


def _held(pipeline: Any) -> dict[str, dict[str, Any]]:
    """What processors of a pipeline have of their own: nothing, as diffusers makes them."""
    return {
        f"{component}.{name}": dict(vars(module.processor))
        for component, model in pipeline.components.items()
        if isinstance(model, torch.nn.Module)
        for name, module in model.named_modules()
        if hasattr(module, "processor") and vars(module.processor)
    }


def _forbidden(backend: str) -> Callable[..., Any]:
    def attend(**arguments: Any) -> Any:
        raise AssertionError(f"{backend} was used")

    return attend


def _forbid(patch: pytest.MonkeyPatch, backend: str) -> None:
    name = AttentionBackendName(backend)
    patch.setitem(_AttentionBackendRegistry._backends, name, _forbidden(backend))


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        (name, backend)
        for name in NAMES
        for backend in ("_native_math", "flex", "_native_flash")
        if not (backend == "_native_flash" and name in MASKED)
    ],
)
def test_all_attention_of_a_run_is_that_of_its_program(
    name: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = _run(name, "native")
    # Also what is used where nothing is said.
    _forbid(monkeypatch, "native")
    found = _run(name, backend)
    torch.testing.assert_close(found.latents, native.latents, rtol=1e-4, atol=1e-4)
    assert found.outcomes == native.outcomes
    assert _held(built(name)) == {}


@pytest.mark.parametrize("name", NAMES)
def test_what_the_process_would_choose_has_no_say(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _run(name, "native").latents
    chosen = AttentionBackendName("_native_math")
    monkeypatch.setattr(_AttentionBackendRegistry, "_active_backend", chosen)
    _forbid(monkeypatch, "_native_math")
    assert torch.equal(_run(name, "native").latents, expected)
    assert _AttentionBackendRegistry._active_backend is chosen


def test_the_environment_has_no_say(checkpoint: Path, loaded: LoadedPipeline) -> None:
    """A backend that cannot run at all, as the default of a whole process."""
    code = (
        "import sys, torch\n"
        "from executor.placement.load import load\n"
        "from tests.executor.engine.test_attention import SPEC, run, uncached\n"
        "torch.set_num_threads(1)\n"
        "loaded = load(sys.argv[1])\n"
        "assert 'native' in loaded.attention_backends\n"
        "print(run(loaded.pipeline, uncached(2), SPEC).latents.sum(dtype=torch.float64).item())\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(checkpoint)],
        env={**os.environ, "DIFFUSERS_ATTN_BACKEND": "_native_xla", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert found.returncode == 0, found.stderr
    expected = run(loaded.pipeline, uncached(2), SPEC).latents
    assert float(found.stdout) == expected.sum(dtype=torch.float64).item()


def test_a_run_that_fails_leaves_nothing() -> None:
    with pytest.raises(ValueError, match="attn_mask"):
        _run("hunyuan-video", "_native_flash")
    assert _held(built("hunyuan-video")) == {}


def test_what_was_set_before_a_run_is_there_behind_it() -> None:
    transformer = built("flux").transformer
    processor = transformer.transformer_blocks[0].attn.processor
    processor._attention_backend = AttentionBackendName._NATIVE_MATH
    try:
        _run("flux", "native")
        assert vars(processor) == {"_attention_backend": AttentionBackendName._NATIVE_MATH}
    finally:
        del processor._attention_backend


def test_an_unknown_backend_is_an_error_before_the_first_step() -> None:
    with pytest.raises(ValueError, match="ditplan_shared"):
        _run("flux", "ditplan_shared")


@pytest.mark.parametrize("name", NAMES)
def test_only_refiners_of_the_prompt_do_without_the_dispatcher(name: str) -> None:
    pipeline = built(name)
    found = {
        module_name.split(".")[0]
        for target in set(CASES[name].targets)
        for module_name, module in getattr(pipeline, target).named_modules()
        if hasattr(module, "processor") and not hasattr(module.processor, "_attention_backend")
    }
    assert found == ({"context_embedder"} if name.startswith("hunyuan") else set())
