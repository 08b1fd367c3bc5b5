"""Whole pipelines of every family to run, called as diffusers calls them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from executor.engine.execution import Execution
from executor.engine.program import (
    AdaptiveRule,
    Branch,
    Calibrator,
    Column,
    Op,
    OpKind,
    OpOutcome,
    Program,
)
from executor.engine.sharing import Sharing
from tests.executor import tiny
from tests.executor.tiny.hunyuan_video_15 import shorten

STEPS = 4
PROMPT = "a cat"
PICTURE = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
SMALL = {"height": 32, "width": 32}
EDITED = {"height": 128, "width": 64}
CLIP = {**SMALL, "num_frames": 5}
ONE_GROUP = (("transformer_blocks", "single_transformer_blocks"),)
TWO_GROUPS = (("transformer_blocks",), ("single_transformer_blocks",))
TRUE_CFG = {"true_cfg_scale": 3.0, "negative_prompt": "blue"}
CFG = {"guidance_scale": 3.0, "negative_prompt": "blue"}
# Guidance in one forward of twice the batch, which is one column.
BATCHED = {**CFG, "guidance_scale": 2.0}


@dataclass(frozen=True)
class Case:
    """A pipeline and its calls: ``plain`` runs one forward a step, ``guided`` two.

    ``targets`` says which transformer denoises each of the four steps.
    """

    pipeline_class: str
    groups: tuple[tuple[str, ...], ...]
    arguments: Mapping[str, Any]
    plain: Mapping[str, Any] | None = None
    guided: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    targets: tuple[str, ...] = ("transformer",) * STEPS
    prepare: Callable[[Any], Any] = lambda pipeline: pipeline


EXPERTS = ("transformer",) * 2 + ("transformer_2",) * 2
ONE_LIST = (("transformer_blocks",),)
WAN = (("blocks",),)
SHORT = {**SMALL, "max_sequence_length": 24}
CASES = {
    "flux": Case("FluxPipeline", ONE_GROUP, SHORT, {}, TRUE_CFG),
    "flux-controlnet": Case(
        "FluxControlNetPipeline", ONE_GROUP, {**SHORT, "control_image": PICTURE}, {}, TRUE_CFG
    ),
    "flux2": Case("Flux2Pipeline", TWO_GROUPS, {**SMALL, "max_sequence_length": 200}, {}),
    "flux2-picture": Case(
        "Flux2Pipeline", TWO_GROUPS, {"max_sequence_length": 200, "image": PICTURE}, {}
    ),
    "klein": Case(
        "Flux2KleinPipeline",
        TWO_GROUPS,
        SHORT,
        {"guidance_scale": 1.0},
        {"guidance_scale": 3.0},
    ),
    "klein-distilled": Case(
        "Flux2KleinPipeline", TWO_GROUPS, SHORT, {}, options={"is_distilled": True}
    ),
    "qwen-image": Case("QwenImagePipeline", ONE_LIST, SMALL, {}, TRUE_CFG),
    "qwen-image-edit": Case(
        "QwenImageEditPipeline", ONE_LIST, {**EDITED, "image": PICTURE}, None, TRUE_CFG
    ),
    "qwen-image-edit-plus": Case(
        "QwenImageEditPlusPipeline", ONE_LIST, {**EDITED, "image": [PICTURE, PICTURE]}, {}
    ),
    "wan-2.1": Case("WanPipeline", WAN, {**CLIP, **SHORT}, {"guidance_scale": 1.0}, CFG),
    "wan-2.2": Case(
        "WanPipeline",
        WAN,
        {**CLIP, **SHORT},
        {"guidance_scale": 1.0},
        {**CFG, "guidance_scale_2": 2.0},
        {"boundary_ratio": 0.8},
        EXPERTS,
    ),
    "wan-2.1-picture": Case(
        "WanImageToVideoPipeline",
        WAN,
        {**CLIP, **SHORT, "image": PICTURE},
        {"guidance_scale": 1.0},
        CFG,
    ),
    "wan-2.2-picture": Case(
        "WanImageToVideoPipeline",
        WAN,
        {**CLIP, **SHORT, "image": PICTURE},
        None,
        CFG,
        {"boundary_ratio": 0.8},
        EXPERTS,
    ),
    "z-image": Case("ZImagePipeline", (("layers",),), SMALL, {"guidance_scale": 0.0}),
    "z-image-guided": Case("ZImagePipeline", (("layers",),), SMALL, BATCHED),
    "hunyuan-video": Case("HunyuanVideoPipeline", TWO_GROUPS, CLIP, {}, TRUE_CFG),
    "hunyuan-video-1.5": Case(
        "HunyuanVideo15Pipeline",
        ONE_LIST,
        CLIP,
        None,
        {"negative_prompt": "blue"},
        prepare=shorten,
    ),
    "hunyuan-video-1.5-plain": Case(
        "HunyuanVideo15Pipeline",
        ONE_LIST,
        CLIP,
        {},
        options={"guidance_scale": 1.0},
        prepare=shorten,
    ),
    "ltx": Case("LTXPipeline", ONE_LIST, {**CLIP, **SHORT}, {"guidance_scale": 1.0}),
    "ltx-guided": Case("LTXPipeline", ONE_LIST, {**CLIP, **SHORT}, BATCHED),
}


@dataclass
class Run:
    """``blocks`` counts the blocks that ran by transformer, ``forwards`` lists (step, target)."""

    latents: Tensor = field(default_factory=lambda: torch.empty(0))
    outcomes: list[tuple[OpOutcome | None, ...]] = field(default_factory=list)
    forwards: list[tuple[int, str]] = field(default_factory=list)
    blocks: Counter[str] = field(default_factory=Counter)


@cache
def built(name: str) -> Any:
    case = CASES[name]
    return case.prepare(tiny.build(case.pipeline_class, **case.options))


@cache
def plain(name: str, guided: bool) -> Run:
    """The pipeline's own call, on no engine."""
    return run_of(built(name), name, guided)


def branches(guided: bool) -> tuple[Branch, ...]:
    return tuple(Branch) if guided else (Branch.COND,)


def program_of(name: str, guided: bool, strip: str, *, fn: int, bn: int) -> Program:
    """1 full, 0 cached, ? adaptive with a threshold that no diff is below."""
    case = CASES[name]
    kinds = {
        "1": Op(OpKind.FULL),
        "0": Op(OpKind.CACHED),
        "?": Op(OpKind.ADAPTIVE, AdaptiveRule(1e-9)),
    }
    columns = tuple(
        Column(target, branch, group, fn, bn, Calibrator())
        for target in dict.fromkeys(case.targets)
        for group in case.groups
        for branch in branches(guided)
    )
    return Program(
        columns,
        tuple(
            tuple(kinds[kind] if column.target == target else None for column in columns)
            for kind, target in zip(strip, case.targets, strict=True)
        ),
    )


def run_of(
    pipeline: Any,
    name: str,
    guided: bool,
    program: Program | None = None,
    sharing: Sharing | None = None,
    **changes: Any,
) -> Run:
    """One call of the pipeline, under the program if there is one."""
    case = CASES[name]
    run = Run()
    targets = {target: getattr(pipeline, target) for target in case.targets}
    execution = None if program is None else Execution(targets, program, sharing=sharing)
    steps = 0

    def end_step() -> None:
        nonlocal steps
        steps += 1
        if execution is not None:
            run.outcomes.append(execution.end_step())

    def count_forward(target: str) -> None:
        run.forwards.append((steps, target))

    def count_block(target: str) -> None:
        run.blocks[target] += 1

    arguments: dict[str, Any] = {"prompt": PROMPT, **case.arguments}
    arguments |= (case.guided if guided else case.plain) or {}
    arguments |= changes
    with ExitStack() as stack:
        for target, module in targets.items():
            _hooked(stack, module, count_forward, target)
            for group in case.groups:
                for blocks in group:
                    for block in getattr(module, blocks):
                        _hooked(stack, block, count_block, target)
        if execution is not None:
            stack.enter_context(execution.attached())
        if case.pipeline_class == "HunyuanVideo15Pipeline":
            # The one pipeline without a callback.
            stack.enter_context(_after_each_step(pipeline.scheduler, end_step))
        else:
            arguments["callback_on_step_end"] = lambda *_: end_step() or {}
        output = pipeline(
            num_inference_steps=STEPS,
            generator=torch.Generator("cpu").manual_seed(7),
            output_type="latent",
            **arguments,
        )
    assert steps == STEPS
    run.latents = output.frames if "frames" in output else output.images
    return run


def _hooked(
    stack: ExitStack, module: torch.nn.Module, count: Callable[[str], None], target: str
) -> None:
    handle = module.register_forward_hook(lambda *_: count(target))
    stack.callback(handle.remove)


@contextmanager
def _after_each_step(scheduler: Any, end_step: Callable[[], None]) -> Iterator[None]:
    step = scheduler.step

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        output = step(*args, **kwargs)
        end_step()
        return output

    scheduler.step = wrapped
    try:
        yield
    finally:
        del scheduler.step
