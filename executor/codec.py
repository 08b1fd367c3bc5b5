"""Between the messages of the contract and the executor's values.

What this executor does not know is refused rather than skipped: a field or a kind that a newer
planner writes could change the picture.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from ditplan.v1 import generation_pb2, plan_pb2
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from PIL import Image, ImageOps

from executor.engine.program import (
    NATIVE,
    AdaptiveRule,
    Branch,
    CacheType,
    Calibrator,
    Column,
    Dmd,
    FoCa,
    Op,
    OpKind,
    OpOutcome,
    Program,
    StepOutcome,
    TaylorSeer,
    Topology,
)
from executor.engine.run import RunSpec, UnusableSpecError
from executor.engine.sharing import Exchanges

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP")

_BRANCH = {plan_pb2.BRANCH_COND: Branch.COND, plan_pb2.BRANCH_UNCOND: Branch.UNCOND}
_KIND = {
    plan_pb2.OP_KIND_FULL: OpKind.FULL,
    plan_pb2.OP_KIND_CACHED: OpKind.CACHED,
    plan_pb2.OP_KIND_ADAPTIVE: OpKind.ADAPTIVE,
}
_CACHE_TYPE = {
    plan_pb2.CACHE_TYPE_RESIDUAL: CacheType.RESIDUAL,
    plan_pb2.CACHE_TYPE_HIDDEN_STATES: CacheType.HIDDEN_STATES,
}
_TO_KIND = {kind: value for value, kind in _KIND.items()}


class UnreadableMessageError(ValueError):
    """A message that this executor cannot follow to the letter; the text names the field."""


def program_from_proto(message: plan_pb2.Program) -> Program:
    """What the engine runs. The reasons of ops are left aside: they change nothing.

    Raises:
        UnreadableMessageError: a field is unknown here, or its value is.
    """
    refuse_unknown_fields(message, "program")
    columns = tuple(
        _column_from_proto(column, f"program.columns[{i}]")
        for i, column in enumerate(message.columns)
    )
    ops = tuple(_op_from_proto(op, f"program.ops[{i}]") for i, op in enumerate(message.ops))
    if not 1 <= len(message.steps) == message.num_inference_steps:
        raise UnreadableMessageError(
            f"program.num_inference_steps: {message.num_inference_steps} "
            f"for {len(message.steps)} steps"
        )
    steps = []
    for i, step in enumerate(message.steps):
        if len(step.ops) != len(columns) or any(number > len(ops) for number in step.ops):
            raise UnreadableMessageError(
                f"program.steps[{i}].ops: {list(step.ops)} does not fit "
                f"{len(columns)} columns and {len(ops)} ops"
            )
        steps.append(tuple(ops[number - 1] if number else None for number in step.ops))
    return Program(
        columns=columns,
        steps=tuple(steps),
        topology=_topology_from_proto(message.topology),
        attention_backend=message.attention_backend or NATIVE,
    )


def spec_from_proto(message: generation_pb2.GenerationSpec) -> RunSpec:
    """What to draw.

    Raises:
        UnreadableMessageError: a field is unknown here, or a default was left open.
        UnusableSpecError: a picture cannot be read.
    """
    refuse_unknown_fields(message, "spec")
    for field in ("seed", "height", "width"):
        if not message.HasField(field):
            raise UnreadableMessageError(f"spec.{field}: is missing")
    return RunSpec(
        prompt=message.prompt,
        height=message.height,
        width=message.width,
        seed=message.seed,
        guidance_scale=_given(message, "guidance_scale"),
        negative_prompt=_given(message, "negative_prompt"),
        num_frames=_given(message, "num_frames"),
        images=tuple(
            _image_from_proto(image, f"spec.images[{i}]") for i, image in enumerate(message.images)
        ),
        fps=_given(message, "fps"),
    )


def _given(message: Message, field: str) -> Any:
    """None where the optional field is left open."""
    return getattr(message, field) if message.HasField(field) else None


def _image_from_proto(message: generation_pb2.InputImage, path: str) -> Image.Image:
    """The picture as the person who took it saw it, without transparency."""
    try:
        with Image.open(io.BytesIO(message.data), formats=PICTURE_FORMATS) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnusableSpecError(f"{path}: cannot be read as a picture: {error}") from None


def step_to_proto(outcome: StepOutcome) -> generation_pb2.StepOutcome:
    return generation_pb2.StepOutcome(
        step=outcome.step,
        ops=[_op_outcome_to_proto(op) for op in outcome.ops],
        milliseconds=outcome.milliseconds,
    )


def exchanges_to_proto(exchanges: Exchanges) -> list[generation_pb2.Exchange]:
    return [
        generation_pb2.Exchange(collective=kind, group=group, calls=calls, bytes=nbytes)
        for (kind, group), (calls, nbytes) in exchanges.items()
    ]


def refuse_unknown_fields(message: Message, path: str) -> None:
    """Raises UnreadableMessageError where a message or one inside it has fields unknown here."""
    unknown = UnknownFieldSet(message)
    if len(unknown):
        raise UnreadableMessageError(f"{path}: field {unknown[0].field_number} is unknown here")
    for name, inner in _inner_messages(message):
        refuse_unknown_fields(inner, f"{path}.{name}")


def _inner_messages(message: Message) -> Iterator[tuple[str, Message]]:
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if isinstance(value, Message):
            yield field.name, value
        else:
            yield from ((f"{field.name}[{i}]", inner) for i, inner in enumerate(value))


def _column_from_proto(message: plan_pb2.Column, path: str) -> Column:
    if message.branch not in _BRANCH:
        raise UnreadableMessageError(f"{path}.branch: {message.branch} is unknown here")
    return Column(
        target=message.target,
        branch=_BRANCH[message.branch],
        block_lists=tuple(message.block_lists),
        fn_compute_blocks=message.fn_compute_blocks,
        bn_compute_blocks=message.bn_compute_blocks,
        calibrator=(
            _calibrator_from_proto(message.calibrator, f"{path}.calibrator")
            if message.HasField("calibrator")
            else None
        ),
        reuses_cond_diff=message.reuses_cond_diff,
    )


def _topology_from_proto(message: plan_pb2.Topology) -> Topology:
    return Topology(
        world_size=message.world_size,
        ring_size=message.ring_size,
        ulysses_size=message.ulysses_size,
        tp_size=message.tp_size,
        ulysses_anything=message.ulysses_anything,
        ulysses_float8=message.ulysses_float8,
        ulysses_async=message.ulysses_async,
        ring_rotate_method=message.ring_rotate_method,
        ring_convert_to_fp32=message.ring_convert_to_fp32,
        extra_parallel_modules=tuple(message.extra_parallel_modules),
        guidance_size=message.guidance_size or 1,
    )


def _calibrator_from_proto(message: plan_pb2.Calibrator, path: str) -> Calibrator:
    if message.cache_type not in _CACHE_TYPE:
        raise UnreadableMessageError(f"{path}.cache_type: {message.cache_type} is unknown here")
    return Calibrator(
        cache_type=_CACHE_TYPE[message.cache_type],
        forecast=_forecast_from_proto(message),
        encoder=message.encoder,
    )


def _forecast_from_proto(message: plan_pb2.Calibrator) -> TaylorSeer | FoCa | Dmd | None:
    match message.WhichOneof("forecast"):
        case "taylorseer_order":
            return TaylorSeer(message.taylorseer_order)
        case "foca":
            return FoCa()
        case "dmd":
            dmd = message.dmd
            return Dmd(dmd.history, dmd.rank, dmd.ridge, dmd.svd_precision)
        case _:
            return None


def _op_from_proto(message: plan_pb2.Op, path: str) -> Op:
    if message.kind not in _KIND:
        raise UnreadableMessageError(f"{path}.kind: {message.kind} is unknown here")
    kind = _KIND[message.kind]
    if (kind is OpKind.ADAPTIVE) != message.HasField("adaptive"):
        raise UnreadableMessageError(
            f"{path}.adaptive: belongs to ADAPTIVE ops, this is {kind.name}"
        )
    return Op(
        kind=kind,
        adaptive=_rule_from_proto(message.adaptive) if kind is OpKind.ADAPTIVE else None,
        refresh=message.refresh,
    )


def _rule_from_proto(message: plan_pb2.AdaptiveRule) -> AdaptiveRule:
    return AdaptiveRule(
        residual_diff_threshold=message.residual_diff_threshold,
        max_cached_steps=_given(message, "max_cached_steps"),
        max_continuous_cached_steps=_given(message, "max_continuous_cached_steps"),
        max_accumulated_residual_diff_threshold=_given(
            message, "max_accumulated_residual_diff_threshold"
        ),
    )


def _op_outcome_to_proto(outcome: OpOutcome | None) -> generation_pb2.OpOutcome:
    if outcome is None:
        return generation_pb2.OpOutcome()
    return generation_pb2.OpOutcome(
        kind=_TO_KIND[outcome.kind], residual_diff=outcome.residual_diff
    )
