"""What is looked at before anything is compiled, stored or waited for."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.v1 import executor_pb2, generation_pb2, plan_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from planner.compile import dtype
from planner.compile.device import CPU, is_device
from planner.errors import Violation, invalid
from planner.service.pictures import picture_faults
from planner.settings import Limits, Timing

_MAX_WORLD_SIZE = 4096
_MAX_CONFIGS = 16
_MAX_FPS = 120
_MAX_CONFIG_BYTES = 1 << 20
_MAX_NAMES = 64
_MAX_SHOWN = 64
_MAX_LAYERS = 1024
_MAX_WEBP_SIDE = 16_383
# Of a google.protobuf.Timestamp: the years 1 to 9999.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799


def check_model_name(model: str, field: str, limits: Limits) -> Iterator[Violation]:
    yield from _name(model, field, limits.name_bytes)


def check_generation(
    request: generation_pb2.CreateGenerationRequest, limits: Limits, timing: Timing
) -> None:
    """Refuses a request to generate whose fields are out of their bounds, naming all of them."""
    request_id, spec = request.request_id, request.spec
    found = []
    if len(request_id.encode()) > limits.request_id_bytes or not request_id.isprintable():
        found.append(
            Violation(
                "request_id", f"is not printable or longer than {limits.request_id_bytes} bytes"
            )
        )
    found.extend(_terms(request, limits, timing.max_deadline))
    found.extend(check_model_name(spec.model, "spec.model", limits))
    if not spec.prompt.strip():
        found.append(Violation("spec.prompt", "is empty"))
    if len(spec.prompt.encode()) > limits.prompt_bytes:
        found.append(Violation("spec.prompt", f"is longer than {limits.prompt_bytes} bytes"))
    if len(spec.negative_prompt.encode()) > limits.prompt_bytes:
        found.append(
            Violation("spec.negative_prompt", f"is longer than {limits.prompt_bytes} bytes")
        )
    if spec.HasField("fps") and not 1 <= spec.fps <= _MAX_FPS:
        found.append(Violation("spec.fps", f"{spec.fps} is not allowed; allowed: 1 to {_MAX_FPS}"))
    found.extend(picture_faults(spec.images, limits))
    if spec.image_format not in generation_pb2.ImageFormat.values():
        text = f"{spec.image_format} is not allowed; allowed: PNG or WEBP"
        found.append(Violation("spec.image_format", text))
    if spec.HasField("program") and spec.program.ByteSize() > limits.program_bytes:
        found.append(Violation("spec.program", f"is larger than {limits.program_bytes} bytes"))
    if found:
        raise invalid(found)


def _terms(
    request: generation_pb2.CreateGenerationRequest, limits: Limits, max_deadline: float
) -> Iterator[Violation]:
    if abs(request.priority) > limits.priority:
        most = limits.priority
        text = f"{request.priority} is not allowed; allowed: -{most} to {most}"
        yield Violation("priority", text)
    if request.HasField("deadline"):
        deadline = seconds(request.deadline)
        left = 0.0 if deadline is None else deadline - time.time()
        if deadline is None:
            yield Violation("deadline", "is no time")
        elif left <= 0:
            yield Violation("deadline", f"is {-left:.3f} s in the past")
        elif left > max_deadline:
            text = f"is {left:.0f} s ahead; at most {max_deadline:.0f} s are allowed"
            yield Violation("deadline", text)


def check_length(spec: generation_pb2.GenerationSpec, limits: Limits) -> None:
    """Refuses what is longer than this service takes; defaults are filled in."""
    found = [
        Violation(name, f"{value} is more than the {most} that this service takes")
        for name, value, most in (
            ("num_inference_steps", spec.num_inference_steps, limits.steps),
            ("num_frames", spec.num_frames, limits.frames),
        )
        if value > most
    ]
    if found:
        raise invalid(found)


def seconds(stamp: Timestamp) -> float | None:
    """Since the epoch; None where the fields are not those of a time."""
    if not _FIRST_SECOND <= stamp.seconds <= _LAST_SECOND or not 0 <= stamp.nanos < 10**9:
        return None
    return stamp.seconds + stamp.nanos / 1e9


def check_size(spec: generation_pb2.GenerationSpec, limits: Limits) -> None:
    """Refuses what is larger than executors are to draw; defaults are filled in."""
    webp = spec.image_format == generation_pb2.IMAGE_FORMAT_WEBP
    sides = ("height", spec.height), ("width", spec.width)
    if webp and (large := [(name, side) for name, side in sides if side > _MAX_WEBP_SIDE]):
        raise invalid(
            [
                Violation(name, f"{side} is more than the {_MAX_WEBP_SIDE} pixels of WebP")
                for name, side in large
            ]
        )
    pixels = spec.height * spec.width
    if pixels > limits.pixels:
        text = (
            f"{spec.height} x {spec.width} are {pixels} pixels, more than the {limits.pixels} "
            "that this service takes"
        )
        raise invalid([Violation(name, text) for name in ("height", "width")])
    pixels *= spec.num_frames
    if pixels > limits.film_pixels:
        text = (
            f"{spec.num_frames} x {spec.height} x {spec.width} are {pixels} pixels, more than the "
            f"{limits.film_pixels} of a film that this service takes"
        )
        raise invalid([Violation(name, text) for name in ("num_frames", "height", "width")])


def check_acquire(request: dispatch_pb2.AcquireLeaseRequest, limits: Limits) -> None:
    found = list(_executor(request.executor, limits))
    if not math.isfinite(request.wait_seconds) or request.wait_seconds < 0:
        found.append(Violation("wait_seconds", f"{request.wait_seconds} is no length of time"))
    if found:
        raise invalid(found)


def _executor(executor: executor_pb2.Executor, limits: Limits) -> Iterator[Violation]:
    yield from _name(executor.name, "executor.name", limits.name_bytes)
    yield from _name(executor.model, "executor.model", limits.name_bytes)
    if not 1 <= executor.world_size <= _MAX_WORLD_SIZE:
        yield Violation(
            "executor.world_size", f"{executor.world_size} is not in 1 to {_MAX_WORLD_SIZE}"
        )
    elif executor.world_size % (executor.tp_size or 1):
        yield Violation(
            "executor.tp_size",
            f"{executor.tp_size} does not divide the world_size {executor.world_size}",
        )
    if executor.dtype not in ("", *dtype.BYTES):
        text = f"{executor.dtype!r} is not allowed; allowed: {dtype.ALLOWED}"
        yield Violation("executor.dtype", text)
    capability = executor.compute_capability
    if capability and (capability == CPU or not is_device(capability)):
        text = f"{capability[:_MAX_SHOWN]!r} is not allowed; allowed: none, or as sm80 and sm90"
        yield Violation("executor.compute_capability", text)
    for field in ("device", "device_name"):
        if text := getattr(executor, field):
            yield from _name(text, f"executor.{field}", limits.name_bytes)
    for field in ("attention_backends", "offloaded", "extra_parallel_modules", "versions"):
        path = f"executor.{field}"
        yield from _names(getattr(executor, field), path, _MAX_NAMES, limits.name_bytes)
    yield from _placement(executor.placement, limits.name_bytes)
    if len(executor.component_configs) > _MAX_CONFIGS:
        yield Violation("executor.component_configs", f"are more than {_MAX_CONFIGS}")
    elif sum(config.ByteSize() for config in executor.component_configs) > _MAX_CONFIG_BYTES:
        text = f"are longer than {_MAX_CONFIG_BYTES} bytes together"
        yield Violation("executor.component_configs", text)
    for i, config in enumerate(executor.component_configs[:_MAX_CONFIGS]):
        yield from _name(config.path, f"executor.component_configs[{i}].path", limits.name_bytes)


def _placement(placement: plan_pb2.Placement, max_bytes: int) -> Iterator[Violation]:
    path = "executor.placement"
    if placement.quant_type:
        yield from _name(placement.quant_type, f"{path}.quant_type", max_bytes)
    layers = f"{path}.exclude_layers"
    yield from _names(placement.exclude_layers, layers, _MAX_LAYERS, max_bytes)
    if len(placement.components) > _MAX_NAMES:
        yield Violation(f"{path}.components", f"are more than {_MAX_NAMES}")
    for i, each in enumerate(placement.components[:_MAX_NAMES]):
        own = f"{path}.components[{i}]"
        yield from _name(each.name, f"{own}.name", max_bytes)
        yield from _name(each.quant_type, f"{own}.quant_type", max_bytes)
        yield from _names(each.exclude_layers, f"{own}.exclude_layers", _MAX_LAYERS, max_bytes)
    if len(placement.precision) > _MAX_LAYERS:
        yield Violation(f"{path}.precision", f"are more than {_MAX_LAYERS}")
    for i, rule in enumerate(placement.precision[:_MAX_LAYERS]):
        yield from _name(rule.part, f"{path}.precision[{i}].part", max_bytes)
        yield from _name(rule.quant_type, f"{path}.precision[{i}].quant_type", max_bytes)


def _names(names: Sequence[str], field: str, most: int, max_bytes: int) -> Iterator[Violation]:
    if len(names) > most:
        yield Violation(field, f"are more than {most}")
        return
    for i, name in enumerate(names):
        yield from _name(name, f"{field}[{i}]", max_bytes)


def _name(name: str, field: str, max_bytes: int) -> Iterator[Violation]:
    if not name:
        yield Violation(field, "is empty")
    elif not name.isprintable():
        yield Violation(field, "holds characters that cannot be printed")
    elif len(name.encode()) > max_bytes:
        yield Violation(field, f"is longer than {max_bytes} bytes")
