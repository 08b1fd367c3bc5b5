"""How the call of each pipeline class takes what a run asks for.

A pipeline class is an entry here; what its transformers' blocks take and return is one in
`executor.engine.families`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

from PIL.Image import Image


class Guiding(Enum):
    """Where a guidance scale goes; the value is the argument of the call that takes it."""

    SCALE = "guidance_scale"
    TRUE_CFG = "true_cfg_scale"
    GUIDER = None
    """A component of the pipeline of its own, which its call does not get as an argument."""


class Pictures(Enum):
    """The pictures that a call starts from."""

    NONE = "none"
    ONE = "one"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What to draw. Sizes in pixels; None leaves the pipeline's default.

    ``fps``: frames per second of a film; it changes no frame.
    """

    prompt: str
    height: int
    width: int
    seed: int
    guidance_scale: float | None = None
    negative_prompt: str | None = None
    num_frames: int | None = None
    images: tuple[Image, ...] = ()
    fps: int | None = None


@dataclass(frozen=True, slots=True)
class PipelineCall:
    """The call of one pipeline class.

    ``fps`` is the rate of the films that it makes; None: it makes pictures. ``padded_by`` names the
    tokenizer whose length a checkpoint was trained with, where that may be short of the usual 512.
    """

    guiding: Guiding = Guiding.SCALE
    takes_negative_prompt: bool = True
    pictures: Pictures = Pictures.NONE
    fps: int | None = None
    padded_by: str | None = None

    def arguments(self, pipeline: Any, spec: RunSpec) -> dict[str, Any]:
        """What of the spec goes into the call.

        Raises:
            UnusableSpecError: the spec holds something that this class cannot take.
        """
        arguments: dict[str, Any] = {
            "prompt": spec.prompt,
            "height": spec.height,
            "width": spec.width,
        }
        if spec.guidance_scale is not None and self.guiding.value is not None:
            arguments[self.guiding.value] = spec.guidance_scale
        if spec.negative_prompt is not None and self.takes_negative_prompt:
            arguments["negative_prompt"] = spec.negative_prompt
        if spec.num_frames is not None:
            if self.fps is None:
                raise UnusableSpecError(f"{_name(pipeline)} makes pictures, not films")
            arguments["num_frames"] = spec.num_frames
        arguments |= self._pictures(pipeline, spec)
        tokenizer = getattr(pipeline, self.padded_by, None) if self.padded_by else None
        if tokenizer is not None:
            arguments["max_sequence_length"] = min(512, tokenizer.model_max_length)
        return arguments

    @contextmanager
    def guided(self, pipeline: Any, spec: RunSpec) -> Iterator[None]:
        """The pipeline with a guider of this run's own, where it has one."""
        if self.guiding is not Guiding.GUIDER:
            yield
            return
        guider = pipeline.guider
        scale = {} if spec.guidance_scale is None else {"guidance_scale": spec.guidance_scale}
        pipeline.guider = guider.new(**scale)
        try:
            yield
        finally:
            pipeline.guider = guider

    def _pictures(self, pipeline: Any, spec: RunSpec) -> dict[str, Any]:
        match self.pictures, spec.images:
            case Pictures.NONE, ():
                return {}
            case Pictures.ONE, (image,):
                return {"image": image}
            case Pictures.LIST, (_, *_):
                return {"image": list(spec.images)}
        raise UnusableSpecError(
            f"{_name(pipeline)} takes {_TAKES[self.pictures]}, {len(spec.images)} are given"
        )


class UnusableSpecError(ValueError):
    """A pipeline cannot take what a run asks for; the message says what."""


_TAKES = {
    Pictures.NONE: "no picture",
    Pictures.ONE: "one picture",
    Pictures.LIST: "one or more pictures",
}

PIPELINES: Mapping[str, PipelineCall] = {
    "FluxPipeline": PipelineCall(takes_negative_prompt=False, padded_by="tokenizer_2"),
    "Flux2Pipeline": PipelineCall(takes_negative_prompt=False),
    "Flux2KleinPipeline": PipelineCall(takes_negative_prompt=False),
    "QwenImagePipeline": PipelineCall(Guiding.TRUE_CFG),
    "QwenImageEditPipeline": PipelineCall(Guiding.TRUE_CFG, pictures=Pictures.ONE),
    "QwenImageEditPlusPipeline": PipelineCall(Guiding.TRUE_CFG, pictures=Pictures.LIST),
    "WanPipeline": PipelineCall(fps=16),
    "WanImageToVideoPipeline": PipelineCall(pictures=Pictures.ONE, fps=16),
    "ZImagePipeline": PipelineCall(),
    "HunyuanVideoPipeline": PipelineCall(takes_negative_prompt=False, fps=24),
    "HunyuanVideo15Pipeline": PipelineCall(Guiding.GUIDER, fps=24),
    "LTXPipeline": PipelineCall(fps=25),
}
"""The pipeline classes that whole runs are made of."""


def _name(pipeline: Any) -> str:
    return type(pipeline).__name__
