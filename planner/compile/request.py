"""What a run asks for, with the model's defaults filled in and its ranges checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from planner.compile.device import ALLOWED as DEVICES
from planner.compile.device import is_device
from planner.compile.dtype import ALLOWED as ALLOWED_DTYPES
from planner.compile.dtype import BYTES as DTYPES
from planner.config.acceleration import AccelerationConfig
from planner.diagnostics import Severity
from planner.models.facts import ModelFacts
from planner.models.guidance import GuidanceKind, NegativePrompt

MAX_STEPS = 1000
MAX_SIDE = 16384
MAX_WORLD_SIZE = 4096
MAX_FRAMES = 1025
MAX_GUIDANCE_SCALE = 1000


@dataclass(frozen=True, slots=True)
class Request:
    """What a run asks for; None leaves it to the config or the model's default. Sizes in pixels."""

    num_inference_steps: int | None = None
    world_size: int | None = None
    height: int | None = None
    width: int | None = None
    guidance_scale: float | None = None
    num_frames: int | None = None
    negative_prompt: bool = False
    # Where it will run, if that is known: "cpu", or a compute capability as "sm90"; and in which
    # dtype the transformers are there.
    device: str | None = None
    dtype: str | None = None
    # Width and height of the first picture that the run starts from.
    picture: tuple[int, int] | None = None

    @property
    def steps(self) -> int:
        """Steps of a request whose defaults are filled in."""
        assert self.num_inference_steps is not None
        return self.num_inference_steps


def with_defaults(request: Request, model: ModelFacts) -> Request:
    """Fills in what the model has a default for."""
    defaults = model.defaults
    if defaults.follows_picture and request.picture and request.height is request.width is None:
        height, width = defaults.size_for(request.picture)
        request = replace(request, height=height, width=width)
    given = {
        name: getattr(defaults, name)
        for name in ("num_inference_steps", "height", "width", "num_frames")
        if getattr(request, name) is None
    }
    return replace(request, **given)


def check_request(source: AccelerationConfig, model: ModelFacts, request: Request) -> None:
    """Reports every value of a request (defaults filled in) that is out of its range."""

    def error(field: str, allowed: str, hint: str = "") -> None:
        message = f"{getattr(request, field)} is not allowed; allowed: {allowed}"
        source.report(Severity.ERROR, "invalid-request", (field,), message, hint)

    steps, world_size = request.num_inference_steps, request.world_size
    if steps is not None and not 1 <= steps <= MAX_STEPS:
        error("num_inference_steps", f"1 to {MAX_STEPS}")
    if world_size is not None and not 1 <= world_size <= MAX_WORLD_SIZE:
        error("world_size", f"1 to {MAX_WORLD_SIZE}")
    multiple = model.defaults.size_multiple
    for name in ("height", "width"):
        side = getattr(request, name)
        if not multiple <= side <= MAX_SIDE or side % multiple:
            hint = _nearest(side, multiple, multiple, MAX_SIDE)
            error(name, f"multiples of {multiple} up to {MAX_SIDE}", hint)
    _check_frames(source, model, request)
    if request.device is not None and not is_device(request.device):
        error("device", DEVICES)
    if request.dtype not in (None, *DTYPES):
        error("dtype", ALLOWED_DTYPES)
    guidance = request.guidance_scale
    if guidance is not None:
        if not math.isfinite(guidance) or not 0 <= guidance <= MAX_GUIDANCE_SCALE:
            error("guidance_scale", f"0 to {MAX_GUIDANCE_SCALE}")
        elif model.guidance.kind is GuidanceKind.NONE:
            source.report(
                Severity.WARNING,
                "guidance-without-effect",
                ("guidance_scale",),
                "this model runs without guidance: guidance_scale has no effect",
            )
    _check_negative_prompt(source, model, request)


def _check_negative_prompt(source: AccelerationConfig, model: ModelFacts, request: Request) -> None:
    guidance = model.guidance
    if not request.negative_prompt:
        return
    if guidance.negative_prompt is NegativePrompt.UNUSED:
        why = "this model runs without one"
    elif not guidance.is_on(request.guidance_scale, negative_prompt=True):
        why = f"with guidance_scale {guidance.scale(request.guidance_scale):g} there is no guidance"
    else:
        return
    source.report(
        Severity.WARNING,
        "negative-prompt-without-effect",
        ("negative_prompt",),
        f"{why}: negative_prompt has no effect",
    )


def _check_frames(source: AccelerationConfig, model: ModelFacts, request: Request) -> None:
    frames, multiple = request.num_frames, model.defaults.frame_multiple
    if frames is None:
        return
    if model.defaults.num_frames is None:
        message = f"{frames} is not allowed; this model makes pictures"
        source.report(Severity.ERROR, "invalid-request", ("num_frames",), message)
    elif not 1 <= frames <= MAX_FRAMES or (frames - 1) % multiple:
        message = (
            f"{frames} is not allowed; allowed: one more than a multiple of {multiple}, "
            f"up to {MAX_FRAMES}"
        )
        hint = _nearest(frames, 1, multiple, MAX_FRAMES)
        source.report(Severity.ERROR, "invalid-request", ("num_frames",), message, hint)


def _nearest(value: int, first: int, step: int, most: int) -> str:
    """The values next to one that is not allowed: those from the first on, a step apart."""
    last = first + (most - first) // step * step
    below = first + (value - first) // step * step
    found = {min(max(each, first), last) for each in (below, below + step)}
    return f"nearest: {' or '.join(map(str, sorted(found)))}"
