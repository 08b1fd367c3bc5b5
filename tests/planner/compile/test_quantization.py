"""What is quantized: one placement for every spelling of a `quantize_config`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ditplan.dispatch.v1.dispatch_pb2 import AcquireLeaseRequest
from ditplan.v1.executor_pb2 import Executor

from planner.codec import placement_to_proto
from planner.compile.compiler import compile_config, compile_program
from planner.compile.plan import ComponentQuantization, Placement, PrecisionRule, Program
from planner.compile.request import Request
from planner.diagnostics import Diagnostic
from planner.models.facts import ModelFacts
from planner.models.resolve import from_name
from planner.service.checks import check_acquire
from planner.settings import Limits


@pytest.fixture(scope="module")
def wan22() -> ModelFacts:
    return from_name("Wan-AI/Wan2.2-T2V-A14B-Diffusers")


def program_of(keys: str, model: ModelFacts) -> Program:
    compilation = compile_config(f"quantize_config: {{{keys}}}", model, Request(4))
    assert compilation.program is not None, compilation.diagnostics
    # What a compiler makes is what a check of it lets through.
    assert compile_program(compilation.program, model, Request()).program is not None
    return compilation.program


def only(keys: str, model: ModelFacts) -> Diagnostic:
    (found,) = compile_config(f"quantize_config: {{{keys}}}", model, Request(4)).diagnostics
    return found


def test_a_list_quantizes_its_components_and_nothing_else(flux: ModelFacts) -> None:
    keys = "quant_type: int8_per_row, exclude_layers: [a], components_to_quantize: "
    placement = program_of(keys + "[vae, text_encoder, vae]", flux).placement
    assert placement == Placement(
        components=(
            ComponentQuantization("text_encoder", "int8_per_row", ("a",)),
            ComponentQuantization("vae", "int8_per_row", ("a",)),
        )
    )
    assert placement.of("transformer") is None


@pytest.mark.parametrize(
    "keys",
    [
        f"exclude_layers: [{', '.join(f'layer{i}' for i in range(1024))}]",
        f"exclude_layers: ['{'~' * 128}']",
        f"precision_plan: {{{', '.join(f'layer{i}: int8' for i in range(1024))}}}",
    ],
)
def test_an_executor_may_hold_whatever_a_config_may_say(keys: str, flux: ModelFacts) -> None:
    """One that loaded its model anew for a plan is not to be refused for it."""
    placement = placement_to_proto(program_of(keys, flux).placement)
    executor = Executor(name="here", model="flux", world_size=1, placement=placement)
    check_acquire(AcquireLeaseRequest(executor=executor), Limits())


@pytest.mark.parametrize(
    "keys",
    [
        f"exclude_layers: [{', '.join(f'layer{i}' for i in range(1025))}]",
        f"exclude_layers: ['{'~' * 129}']",
        'exclude_layers: ["a\\tb"]',
        f"components_to_quantize: {{vae: {{exclude_layers: ['{'~' * 129}']}}}}",
        f"precision_plan: {{{', '.join(f'layer{i}: int8' for i in range(1025))}}}",
    ],
)
def test_what_no_executor_may_hold_is_refused(keys: str, flux: ModelFacts) -> None:
    assert compile_config(f"quantize_config: {{{keys}}}", flux, Request(4)).program is None


def test_a_mapping_says_what_differs_for_each(flux: ModelFacts) -> None:
    placement = program_of(
        "exclude_layers: [a], components_to_quantize: {transformer: ~, "
        "text_encoder: {quant_type: INT8, exclude_layers: [embed]}}",
        flux,
    ).placement
    assert placement.of("transformer") == ComponentQuantization(
        "transformer", "float8_per_row", ("a",)
    )
    assert placement.of("text_encoder") == ComponentQuantization(
        "text_encoder", "int8_per_row", ("embed",)
    )


def test_every_transformer_by_name_is_every_transformer(wan22: ModelFacts) -> None:
    plain = program_of("quant_type: int8_per_row", wan22)
    listed = "quant_type: int8_per_row, components_to_quantize: [transformer_2, transformer]"
    assert program_of(listed, wan22) == plain
    one = program_of("components_to_quantize: [transformer]", wan22).placement
    assert one.of("transformer_2") is None


def test_the_longest_part_of_a_name_decides(flux: ModelFacts) -> None:
    keys = "precision_plan: {attn.to_q: int8, attn: float8_per_block}"
    placement = program_of(keys, flux).placement
    assert placement.precision == (
        PrecisionRule("attn", "float8_per_block"),
        PrecisionRule("attn.to_q", "int8_per_row"),
    )
    transformer = placement.of("transformer")
    assert transformer is not None
    assert placement.quant_type_of(transformer, "blocks.0.attn.to_q") == "int8_per_row"
    assert placement.quant_type_of(transformer, "blocks.0.attn.to_k") == "float8_per_block"
    assert placement.quant_type_of(transformer, "blocks.0.ff") == "float8_per_row"


def test_the_estimate_follows_components_and_parts(flux: ModelFacts) -> None:
    def parameters(keys: str) -> int:
        estimate = compile_config(f"quantize_config: {{{keys}}}", flux, Request(4)).estimate
        assert estimate is not None
        assert estimate.cost is not None
        return estimate.cost.parameter_bytes

    all_int8, all_int4 = (parameters(f"quant_type: {k}") for k in ("int8", "int4_weight_only"))
    mixed = parameters("quant_type: int8, precision_plan: {attn: int4_weight_only}")
    assert all_int4 < mixed < all_int8
    assert parameters("components_to_quantize: [vae]") > all_int8


@pytest.mark.parametrize(
    ("keys", "code", "field", "hint"),
    [
        (
            "components_to_quantize: [transformer, transformer_2]",
            "no-such-component",
            "components_to_quantize[1]",
            "its components: transformer",
        ),
        (
            "components_to_quantize: {transformer_2: ~}",
            "no-such-component",
            "components_to_quantize.transformer_2",
            "",
        ),
        (
            "components_to_quantize: {vea: ~}",
            "unknown-key",
            "components_to_quantize.vea",
            "did you mean vae?",
        ),
        (
            "components_to_quantize: {vae: {quant_typ: int8}}",
            "unknown-key",
            "components_to_quantize.vae.quant_typ",
            "did you mean quant_type?",
        ),
        ("components_to_quantize: [unet]", "invalid-value", "components_to_quantize[0]", ""),
        ("components_to_quantize: []", "invalid-value", "components_to_quantize", ""),
        ("precision_plan: {attn: float7}", "invalid-value", "precision_plan.attn", ""),
        (
            "precision_plan: {attn: svdq_int4_r32}",
            "unsupported-value",
            "precision_plan.attn",
            "",
        ),
        ("precision_plan: [attn]", "invalid-value", "precision_plan", ""),
        ("exclude_layers: [embed, '']", "invalid-value", "exclude_layers[1]", ""),
    ],
)
def test_what_cannot_be_quantized_is_said(
    keys: str, code: str, field: str, hint: str, flux: ModelFacts
) -> None:
    found = only(keys, flux)
    assert (found.code, found.field) == (code, f"quantize_config.{field}")
    assert hint in found.hint
    assert found.line == 1


def test_a_part_that_no_layer_has_is_said(flux: ModelFacts) -> None:
    found = only("precision_plan: {attn: int8_per_row, atn.to_q: int8_per_row}", flux)
    assert (found.severity.value, found.code) == ("warning", "no-such-layer")
    assert found.field == "quantize_config.precision_plan.atn.to_q"
    assert found.hint.startswith("names are as transformer_blocks.0.")
    # What else is quantized has layers that are not known here.
    keys = "components_to_quantize: [vae], precision_plan: {atn: int8_per_row}"
    assert compile_config(f"quantize_config: {{{keys}}}", flux, Request(4)).diagnostics == ()


def test_layers_are_listed_where_the_config_asks(flux: ModelFacts) -> None:
    quiet = compile_config("quantize_config: {quant_type: int8}", flux, Request(4))
    loud = compile_config("quantize_config: {quant_type: int8, verbose: true}", flux, Request(4))
    assert quiet.layers == ()
    assert loud.program == quiet.program
    found = {layers.name: layers for layers in loud.layers}
    one = found["single_transformer_blocks.*.attn.to_q"]
    assert (one.component, one.count, one.quant_type) == ("transformer", 38, "int8_per_row")
    assert {layers.reason for layers in loud.layers if not layers.quant_type} == set()


def test_a_program_quantizes_components_that_there_are(flux: ModelFacts) -> None:
    program = program_of("components_to_quantize: [vae]", flux)
    own = (ComponentQuantization("text_encoder_3", "int8_per_row"),)
    other = replace(program, placement=Placement(components=own))
    [found] = compile_program(other, flux, Request()).diagnostics
    assert found.message == "this model has no text_encoder_3"
