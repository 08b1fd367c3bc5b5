"""What a device can run of diffusers' attention backends is found by running it."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from diffusers.models import attention_dispatch as dispatch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

from executor.placement.attention import probe

CPU = torch.device("cpu")
ON_CPU = {"_native_flash", "_native_math", "flex", "native"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_backend_is_tried_and_those_of_the_cpu_run(dtype: torch.dtype) -> None:
    faults = probe(CPU, dtype)
    assert faults.keys() == {backend.value for backend in AttentionBackendName}
    assert {name for name, fault in faults.items() if not fault} == ON_CPU


def test_it_is_quick_and_takes_nothing_of_the_process() -> None:
    probe(CPU, torch.float32)
    torch.manual_seed(1)
    state, active = torch.get_rng_state(), _AttentionBackendRegistry._active_backend
    began = time.perf_counter()
    probe(CPU, torch.float32)
    assert time.perf_counter() - began < 0.5
    assert torch.equal(torch.get_rng_state(), state)
    assert _AttentionBackendRegistry._active_backend is active


@pytest.mark.parametrize(
    ("name", "install"),
    [
        ("sage", "sageattention>="),
        ("_sage_qk_int8_pv_fp16_triton", "sageattention>="),
        ("flash", "flash-attn>="),
        ("_flash_3", "build FA3"),
        ("xformers", "xformers>="),
        ("flash_hub", "pip install kernels"),
        ("_native_npu", "torch_npu"),
    ],
)
def test_a_missing_package_is_named_with_its_install_line(name: str, install: str) -> None:
    assert install in probe(CPU, torch.float32)[name]


def _answering(patch: pytest.MonkeyPatch, name: str, answer: Any) -> str:
    backend = AttentionBackendName(name)
    patch.setitem(_AttentionBackendRegistry._backends, backend, answer)
    return probe(CPU, torch.float32)[name]


def test_a_result_that_is_wrong_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets_the_scale(**given: Any) -> Any:
        return dispatch._native_attention(**{**given, "scale": 1.0})

    fault = _answering(monkeypatch, "_native_math", forgets_the_scale)
    assert "from that of native when it was tried" in fault


def test_a_result_that_is_rounded_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def rounds(**given: Any) -> Any:
        return dispatch._native_attention(**given).to(torch.float8_e4m3fn).float()

    assert _answering(monkeypatch, "_native_math", rounds) == ""


def test_kernels_of_the_hub_are_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the package that would download them, and a network."""

    def download(backend: Any) -> None:
        raise AssertionError(f"{backend} is downloaded")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(dispatch, "_check_attention_backend_requirements", lambda backend: None)
    monkeypatch.setattr(dispatch, "_maybe_download_kernel_for_backend", download)
    faults = probe(CPU, torch.float32)
    for backend, kernel in dispatch._HUB_KERNELS_REGISTRY.items():
        assert kernel.repo_id in faults[backend.value]
        assert "HF_HUB_OFFLINE=1" in faults[backend.value]


def test_offline_they_come_from_the_cache_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(dispatch, "_check_attention_backend_requirements", lambda backend: None)
    monkeypatch.setattr(dispatch, "_maybe_download_kernel_for_backend", fetched.append)
    probe(CPU, torch.float32)
    assert set(fetched) == set(dispatch._HUB_KERNELS_REGISTRY)
