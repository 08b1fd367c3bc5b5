"""Programs on the wire and in the engine."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from ditplan.v1 import generation_pb2, plan_pb2
from google.protobuf.message import Message
from PIL import Image

from executor import codec
from executor.codec import UnreadableMessageError
from executor.codec_placement import executor_to_proto
from executor.engine.program import (
    AdaptiveRule,
    Branch,
    CacheType,
    Calibrator,
    Column,
    Op,
    OpKind,
    OpOutcome,
    StepOutcome,
    TaylorSeer,
)
from executor.engine.run import UnusableSpecError
from executor.placement.load import LoadedPipeline
from tests.executor.agent.scripted_planner import default_spec
from tests.executor.programs import program

FIELD_1000 = bytes.fromhex("c03e01")


def test_a_program_arrives_with_everything_that_changes_the_result() -> None:
    message = program("FCAF")
    message.columns[0].branch = plan_pb2.BRANCH_UNCOND
    message.columns[0].bn_compute_blocks = 2
    message.columns[0].calibrator.cache_type = plan_pb2.CACHE_TYPE_HIDDEN_STATES
    message.columns[0].calibrator.taylorseer_order = 0
    message.columns[0].calibrator.encoder = True
    message.ops[0].refresh = True
    message.steps[3].ops[0] = 0
    message.attention_backend = "flex"
    decoded = codec.program_from_proto(message)
    assert decoded.attention_backend == "flex"
    assert decoded.columns == (
        Column(
            target="transformer",
            branch=Branch.UNCOND,
            block_lists=("transformer_blocks", "single_transformer_blocks"),
            fn_compute_blocks=1,
            bn_compute_blocks=2,
            calibrator=Calibrator(CacheType.HIDDEN_STATES, TaylorSeer(0), encoder=True),
        ),
    )
    rule = AdaptiveRule(0.5, max_cached_steps=3)
    assert decoded.steps == (
        (Op(OpKind.FULL, refresh=True),),
        (Op(OpKind.CACHED),),
        (Op(OpKind.ADAPTIVE, adaptive=rule),),
        (None,),
    )


@pytest.mark.parametrize(
    "limit",
    [
        "max_cached_steps",
        "max_continuous_cached_steps",
        "max_accumulated_residual_diff_threshold",
    ],
)
def test_a_limit_of_zero_is_a_limit(limit: str) -> None:
    message = program("FA")
    message.ops[1].adaptive.Clear()
    setattr(message.ops[1].adaptive, limit, 0)
    (op,) = codec.program_from_proto(message).steps[1]
    assert op is not None
    assert op.adaptive == AdaptiveRule(0.0, **{limit: 0})


def _set(path: str, value: object) -> Callable[[plan_pb2.Program], None]:
    def change(message: plan_pb2.Program) -> None:
        part = eval(f"message.{path.rpartition('.')[0]}", {"message": message})
        setattr(part, path.rpartition(".")[2], value)

    return change


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (_set("ops[0].kind", 0), "program.ops[0].kind"),
        (_set("ops[0].kind", 9), "program.ops[0].kind"),
        (_set("columns[0].branch", 9), "program.columns[0].branch"),
        (_set("columns[0].calibrator.cache_type", 9), "program.columns[0].calibrator.cache_type"),
        (lambda m: m.ops[2].ClearField("adaptive"), "program.ops[2].adaptive"),
        (lambda m: m.ops[0].adaptive.SetInParent(), "program.ops[0].adaptive"),
        (lambda m: m.steps[1].ops.append(1), "program.steps[1].ops"),
        (lambda m: m.steps[1].ops.__setitem__(0, 4), "program.steps[1].ops"),
        (lambda m: m.steps.add(ops=[1]), "program.num_inference_steps"),
        (lambda m: (m.ClearField("steps"), m.ClearField("num_inference_steps")), "program.num_"),
    ],
)
def test_what_is_not_understood_is_refused(
    change: Callable[[plan_pb2.Program], object], field: str
) -> None:
    message = program("FCA")
    change(message)
    with pytest.raises(UnreadableMessageError) as caught:
        codec.program_from_proto(message)
    assert str(caught.value).startswith(field)


@pytest.mark.parametrize(
    ("part", "path"),
    [
        (lambda m: m, "program"),
        (lambda m: m.ops[1], "program.ops[1]"),
        (lambda m: m.ops[2].adaptive, "program.ops[2].adaptive"),
        (lambda m: m.columns[0].calibrator, "program.columns[0].calibrator"),
        (lambda m: m.topology, "program.topology"),
    ],
)
def test_a_field_of_a_newer_planner_is_refused(
    part: Callable[[plan_pb2.Program], Message], path: str
) -> None:
    message = program("FCA")
    part(message).MergeFromString(FIELD_1000)
    with pytest.raises(UnreadableMessageError) as caught:
        codec.program_from_proto(message)
    assert str(caught.value) == f"{path}: field 1000 is unknown here"


def test_a_spec_keeps_the_pipelines_own_guidance_where_none_is_given() -> None:
    assert codec.spec_from_proto(default_spec()).guidance_scale == 3.5
    assert codec.spec_from_proto(default_spec(guidance_scale=None)).guidance_scale is None


@pytest.mark.parametrize("field", ["seed", "height", "width"])
def test_a_spec_with_an_open_default_is_refused(field: str) -> None:
    with pytest.raises(UnreadableMessageError, match=f"spec.{field}"):
        codec.spec_from_proto(default_spec(**{field: None}))


def test_a_spec_with_a_field_of_a_newer_planner_is_refused() -> None:
    spec = default_spec()
    spec.MergeFromString(FIELD_1000)
    with pytest.raises(UnreadableMessageError, match="spec: field 1000"):
        codec.spec_from_proto(spec)


def test_a_step_is_reported_as_it_was() -> None:
    ops = (OpOutcome(OpKind.CACHED, residual_diff=0.0), None, OpOutcome(OpKind.FULL))
    assert codec.step_to_proto(StepOutcome(3, ops, 12.5)) == generation_pb2.StepOutcome(
        step=3,
        ops=[
            generation_pb2.OpOutcome(kind=plan_pb2.OP_KIND_CACHED, residual_diff=0.0),
            generation_pb2.OpOutcome(),
            generation_pb2.OpOutcome(kind=plan_pb2.OP_KIND_FULL),
        ],
        milliseconds=12.5,
    )


def test_an_executor_says_which_attention_it_has(loaded: LoadedPipeline) -> None:
    message = executor_to_proto("here", loaded, allow_reload=False)
    assert list(message.attention_backends) == ["_native_flash", "_native_math", "flex", "native"]


def _picture(image: Image.Image, file_format: str, **options: object) -> generation_pb2.InputImage:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return generation_pb2.InputImage(data=file.getvalue())


def _spec_with(*images: generation_pb2.InputImage) -> generation_pb2.GenerationSpec:
    return generation_pb2.GenerationSpec(
        prompt="x", seed=1, height=16, width=16, images=images, negative_prompt="", num_frames=5
    )


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_a_picture_arrives_upright_and_opaque(file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # Turned by a quarter.
    mode = "RGB" if file_format == "JPEG" else "RGBA"
    spec = codec.spec_from_proto(
        _spec_with(_picture(Image.new(mode, (40, 20), "red"), file_format, exif=exif))
    )
    [image] = spec.images
    assert (image.mode, image.size) == ("RGB", (20, 40))
    assert (spec.negative_prompt, spec.num_frames, spec.fps) == ("", 5, None)


def test_a_picture_that_cannot_be_read_is_the_callers_fault() -> None:
    whole = _picture(Image.radial_gradient("L"), "PNG").data
    for data in (whole[: len(whole) // 2], b"", b"GIF89a", whole[:8] + b"\xff" * 40):
        with pytest.raises(UnusableSpecError, match=r"spec\.images\[0\]: cannot be read"):
            codec.spec_from_proto(_spec_with(generation_pb2.InputImage(data=data)))
