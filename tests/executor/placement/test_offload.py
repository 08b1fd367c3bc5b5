"""Components that wait in the host's memory: where they are when, and that nothing else changes.

The device is the CPU here, so nothing really moves: what is asked to move is what is looked at.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from executor.errors import PlacementError
from executor.placement.device import DeviceChoice
from executor.placement.load import load
from executor.placement.offload import Offload, place
from tests.executor import tiny
from tests.executor.engine.whole_runs import CASES, built, program_of, run_of

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
EVERYTHING = Offload(dit=True, text_encoder=True, vae=True)


@pytest.mark.parametrize("offload", [EVERYTHING, Offload(dit_layerwise=True, vae=True)])
@pytest.mark.parametrize("name", ["flux", "wan-2.2", "qwen-image-edit", "hunyuan-video", "z-image"])
def test_runs_are_the_same_bit_for_bit(name: str, offload: Offload) -> None:
    case = CASES[name]
    guided = case.guided is not None
    program = program_of(name, guided, "1010", fn=1, bn=1)
    pipeline = case.prepare(tiny.build(case.pipeline_class, **case.options))
    place(pipeline, CPU, offload)
    expected = run_of(built(name), name, guided, program)
    for _ in range(2):
        run = run_of(pipeline, name, guided, program)
        assert torch.equal(run.latents, expected.latents)
        assert run.blocks == expected.blocks


class _Moves:
    """What is asked to move while a pipeline runs, in order: "+name" comes, "-name" leaves."""

    def __init__(self, pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[str] = []
        names = {id(m): n for n, m in pipeline.components.items() if isinstance(m, nn.Module)}
        moved = nn.Module.to

        def to(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
            if id(module) in names and args:
                self.told.append(("-" if args[0] is HOST else "+") + names[id(module)])
            return moved(module, *args, **kwargs)

        from executor.placement.offload import HOST

        for module in pipeline.components.values():
            if isinstance(module, nn.Module):
                # diffusers' models have one of their own.
                monkeypatch.setattr(type(module), "to", to)


def test_one_component_is_on_the_device_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = tiny.build("FluxPipeline")
    place(pipeline, CPU, EVERYTHING)
    moves = _Moves(pipeline, monkeypatch)
    spec = {"prompt": "a cat", "height": 32, "width": 32, "num_inference_steps": 2}
    pipeline(**spec, max_sequence_length=16)
    assert moves.told == [
        "+text_encoder",
        "-text_encoder",
        "+text_encoder_2",
        "-text_encoder_2",
        "+transformer",
        "-transformer",
        "+vae",
    ]
    moves.told.clear()
    pipeline(**spec, max_sequence_length=16)
    assert moves.told[:2] == ["-vae", "+text_encoder"]


@pytest.mark.parametrize(
    "offload", [Offload(text_encoder=True), Offload(text_encoder=True, dit_layerwise=True)]
)
def test_what_does_not_wait_stays_and_sends_the_others_back(
    offload: Offload, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = tiny.build("FluxPipeline")
    place(pipeline, CPU, offload)
    gone: list[list[str]] = []
    pipeline.transformer.transformer_blocks[0].register_forward_pre_hook(
        lambda *_: gone.append(moves.told[-1:])
    )
    moves = _Moves(pipeline, monkeypatch)
    pipeline(prompt="a cat", height=32, width=32, num_inference_steps=2, max_sequence_length=16)
    assert moves.told == ["+text_encoder", "-text_encoder", "+text_encoder_2", "-text_encoder_2"]
    assert gone[0] == ["-text_encoder_2"], "the transformer runs beside it"


@pytest.mark.parametrize(
    ("offload", "device", "compiled", "faults"),
    [
        (Offload(), CPU, True, []),
        (Offload(vae=True), CPU, False, ["--vae-cpu-offload: the device is the CPU itself"]),
        (
            Offload(dit=True, text_encoder=True),
            CPU,
            False,
            [
                "--dit-cpu-offload: the device is the CPU itself",
                "--text-encoder-cpu-offload: the device is the CPU itself",
            ],
        ),
        (Offload(dit=True, vae=True), CUDA, True, []),
        (Offload(dit_layerwise=True), CUDA, False, []),
        (
            Offload(dit=True, dit_layerwise=True),
            CUDA,
            True,
            [
                "--dit-layerwise-offload: --dit-cpu-offload moves the whole already",
                "--dit-layerwise-offload: blocks that move cannot be compiled",
            ],
        ),
    ],
)
def test_what_cannot_work_is_said(
    offload: Offload, device: torch.device, compiled: bool, faults: list[str]
) -> None:
    assert offload.faults(device, compiled=compiled) == faults


def test_it_is_said_before_anything_is_loaded() -> None:
    with pytest.raises(PlacementError, match="--dit-cpu-offload: the device is the CPU itself"):
        load("/no/such/model", device=DeviceChoice.CPU, offload=Offload(dit=True))
