"""A config, a model and a request become one program, or findings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.codec import program_to_proto
from planner.compile.compiler import Compilation, compile_config
from planner.compile.plan import (
    AdaptiveRule,
    Branch,
    CacheType,
    Calibrator,
    Column,
    Op,
    OpKind,
    Placement,
    Program,
    Reason,
    TaylorSeer,
    Topology,
)
from planner.compile.request import Request
from planner.diagnostics import Severity
from planner.models.facts import ModelFacts
from planner.models.resolve import from_name


def program_of(config: str, model: ModelFacts, request: Request | None = None) -> Program:
    compilation = compile_config(config, model, request or Request())
    assert compilation.program is not None, compilation.diagnostics
    return compilation.program


def test_nothing_to_accelerate_computes_everything(flux: ModelFacts) -> None:
    compilation = compile_config("", flux, Request(num_inference_steps=3))
    full = Op(OpKind.FULL, Reason.NO_CACHE)
    assert compilation.program == Program(
        model=flux.architecture,
        columns=(
            Column("transformer", Branch.COND, ("transformer_blocks", "single_transformer_blocks")),
        ),
        steps=((full,), (full,), (full,)),
    )
    assert not compilation.diagnostics


def test_a_cache_becomes_a_column_and_its_ops(flux: ModelFacts) -> None:
    program = program_of(
        """
        cache_config:
          max_warmup_steps: 1
          max_cached_steps: 9
          max_continuous_cached_steps: 2
          max_accumulated_residual_diff_threshold: 0.5
          Fn_compute_blocks: 2
          Bn_compute_blocks: 3
          residual_diff_threshold: 0.12
          enable_taylorseer: true
          taylorseer_order: 2
          taylorseer_cache_type: hidden_states
        """,
        flux,
        Request(num_inference_steps=3),
    )
    (column,) = program.columns
    assert (column.fn_compute_blocks, column.bn_compute_blocks) == (2, 3)
    assert column.calibrator == Calibrator(CacheType.HIDDEN_STATES, TaylorSeer(2))
    adaptive = Op(OpKind.ADAPTIVE, Reason.DBCACHE, AdaptiveRule(0.12, 9, 2, 0.5))
    assert program.steps == ((Op(OpKind.FULL, Reason.WARMUP),), (adaptive,), (adaptive,))


def test_what_is_not_enabled_changes_no_program(flux: ModelFacts) -> None:
    plain = program_of("cache_config: {}", flux)
    for keys in (
        "taylorseer_order: 4",
        "taylorseer_cache_type: hidden_states",
        "enable_encoder_taylorseer: true",
        "dmd_history: 9",
        "max_accumulated_residual_diff_threshold: 0.0",
        "max_cached_steps: -7",
        "force_refresh_step_hint: 28",
        "force_refresh_step_policy: repeat",
    ):
        assert program_of(f"cache_config: {{{keys}}}", flux) == plain, keys


@pytest.mark.parametrize(
    ("config", "backend", "findings"),
    [
        ("", "", []),
        ("attention_backend: flash", "flash", []),
        ("parallelism_config: {tp_size: 2}", "", []),
        ("parallelism_config: {ulysses_size: 2}", "native", []),
        ("parallelism_config: {ring_size: 2}", "native", []),
        ("parallelism_config: {ulysses_size: 2, attention_backend: sage}", "sage", []),
        ("attention_backend: flash\nparallelism_config: {ulysses_size: 2}", "flash", []),
        (
            "attention_backend: flash\nparallelism_config: {tp_size: 2, attention_backend: sage}",
            "sage",
            ["two-attention-backends"],
        ),
    ],
)
def test_attention_backend(
    config: str, backend: str, findings: list[str], flux: ModelFacts
) -> None:
    compilation = compile_config(config, flux, Request())
    assert compilation.program is not None
    assert compilation.program.attention_backend == backend
    assert [d.code for d in compilation.diagnostics] == findings


def test_placement(flux: ModelFacts) -> None:
    assert program_of("", flux).placement == Placement()
    assert program_of("quantize_config: {exclude_layers: [b, a]}", flux).placement == Placement(
        "float8_per_row", ("a", "b")
    )


class TestRequests:
    def test_defaults_are_the_models(self, flux: ModelFacts) -> None:
        compilation = compile_config("", flux, Request())
        assert compilation.request == Request(28, 1, 1024, 1024, None)

    def test_a_step_count_of_the_file_comes_before_the_models(self, flux: ModelFacts) -> None:
        config = "cache_config: {num_inference_steps: 12}"
        assert program_of(config, flux).num_inference_steps == 12
        assert program_of(config, flux, Request(9)).num_inference_steps == 9

    @pytest.mark.parametrize(
        ("request_", "field", "hint"),
        [
            (Request(num_inference_steps=0), "num_inference_steps", ""),
            (Request(num_inference_steps=1001), "num_inference_steps", ""),
            (Request(world_size=0), "world_size", ""),
            (Request(height=0), "height", "nearest: 16"),
            (Request(height=1000), "height", "nearest: 992 or 1008"),
            (Request(width=99999), "width", "nearest: 16384"),
            (Request(width=-16), "width", "nearest: 16"),
            (Request(guidance_scale=-1), "guidance_scale", ""),
            (Request(guidance_scale=float("nan")), "guidance_scale", ""),
            (Request(guidance_scale=float("inf")), "guidance_scale", ""),
        ],
    )
    def test_values_out_of_range_are_refused(
        self, request_: Request, field: str, hint: str, flux: ModelFacts
    ) -> None:
        compilation = compile_config("cache_config: {}", flux, request_)
        (found,) = compilation.diagnostics
        assert compilation.program is None
        assert (found.field, found.hint, found.line) == (field, hint, 0)

    @pytest.mark.parametrize(
        ("model", "request_", "hints"),
        [
            ("black-forest-labs/FLUX.1-dev", Request(width=1010), {"width": "1008 or 1024"}),
            (
                "Tongyi-MAI/Z-Image-Turbo",
                Request(height=1008, width=1015),
                {"width": "1008 or 1024"},
            ),
            (
                "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
                Request(height=484, width=835, num_frames=80),
                {"height": "480 or 496", "width": "832 or 848", "num_frames": "77 or 81"},
            ),
            (
                "Lightricks/LTX-Video",
                Request(height=720, width=1290, num_frames=100),
                {"height": "704 or 736", "width": "1280 or 1312", "num_frames": "97 or 105"},
            ),
            (
                "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
                Request(height=720, num_frames=123),
                {"height": "704 or 736", "num_frames": "121 or 125"},
            ),
            (
                "hunyuanvideo-community/HunyuanVideo",
                Request(height=721, num_frames=0),
                {"height": "720 or 736", "num_frames": "1"},
            ),
            (
                "Lightricks/LTX-Video",
                Request(height=16400, num_frames=2000),
                {"height": "16384", "num_frames": "1025"},
            ),
        ],
    )
    def test_a_size_between_two_that_are_allowed_names_both(
        self, model: str, request_: Request, hints: dict[str, str]
    ) -> None:
        compilation = compile_config("", from_name(model), request_)
        found = {d.field: d.hint for d in compilation.diagnostics}
        assert found == {field: f"nearest: {hint}" for field, hint in hints.items()}

    def test_a_step_count_of_the_file_is_bounded_as_well(self, flux: ModelFacts) -> None:
        compilation = compile_config(
            "cache_config: {num_inference_steps: 2147483647}", flux, Request()
        )
        assert [d.field for d in compilation.diagnostics] == ["num_inference_steps"]

    def test_guidance_without_effect_is_a_warning(self) -> None:
        schnell = from_name("black-forest-labs/FLUX.1-schnell")
        compilation = compile_config("", schnell, Request(guidance_scale=3.5))
        (found,) = compilation.diagnostics
        assert (found.severity, found.code) == (Severity.WARNING, "guidance-without-effect")
        assert compilation.program is not None

    def test_faults_of_file_and_request_come_together_in_the_order_of_the_file(
        self, flux: ModelFacts
    ) -> None:
        compilation = compile_config(
            "cache_config:\n  bar: 1\nquantize_config:\n  foo: 1\n", flux, Request(height=1)
        )
        assert [d.field for d in compilation.diagnostics] == [
            "height",
            "cache_config.bar",
            "quantize_config.foo",
        ]


SPELLINGS = [
    "cache_config: {max_warmup_steps: 4, residual_diff_threshold: 0.5}\n"
    "parallelism_config: {ulysses_size: 2}",
    "parallelism_config:\n  ulysses: auto\ncache_config:\n"
    "  residual_diff_threshold: 0.50\n  max_warmup_steps: 0x4\n",
    '{"parallelism_config": {"ulysses_size": "AUTO", "tp_size": 1}, "cache_config": '
    '{"max_warmup_steps": 4, "residual_diff_threshold": 5e-1, "warmup_interval": null}}',
]


def test_equal_spellings_are_one_program(flux: ModelFacts) -> None:
    programs = {program_of(text, flux, Request(world_size=2)) for text in SPELLINGS}
    assert len(programs) == 1
    messages = {program_to_proto(p).SerializeToString() for p in programs}
    assert len(messages) == 1


def test_compiling_twice_gives_the_same(flux: ModelFacts) -> None:
    def once() -> Compilation:
        return compile_config(SPELLINGS[0], flux, Request(world_size=2))

    assert once() == once()


def test_every_part_of_a_program_tells_programs_apart(flux: ModelFacts) -> None:
    program = program_of("cache_config: {max_warmup_steps: 1}", flux, Request(2))
    (column,) = program.columns
    others = [
        replace(program, model=replace(program.model, family="other")),
        replace(program, columns=(replace(column, fn_compute_blocks=1),)),
        replace(program, columns=(replace(column, calibrator=Calibrator(encoder=True)),)),
        replace(program, steps=program.steps * 2),
        replace(program, steps=program.steps[::-1]),
        replace(program, topology=Topology(ulysses_size=2, world_size=2)),
        replace(program, placement=Placement("int8_per_row")),
        replace(program, attention_backend="flash"),
    ]
    messages = {program_to_proto(p).SerializeToString() for p in [program, *others]}
    assert len(messages) == len(others) + 1


def test_the_faults_of_all_sections_come_together(flux: ModelFacts) -> None:
    """One that a section alone shows does not hide what the model or the ranks show of another."""
    config = """\
cache_config: {max_warmup_step: 1}
parallelism_config: {ulysses_size: 5, tp_size: 3}
quantize_config: {components_to_quantize: [transformer_2]}
attention_backend: flsh
"""
    compilation = compile_config(config, flux, Request(28, 15))
    assert [(d.code, d.line) for d in compilation.diagnostics] == [
        ("unknown-key", 1),
        ("sequence-does-not-divide", 2),
        ("sequence-does-not-divide", 2),
        ("heads-do-not-divide", 2),
        ("no-such-component", 3),
        ("invalid-value", 4),
    ]


def test_a_fault_of_a_section_has_no_consequences(flux: ModelFacts) -> None:
    config = "parallelism_config: {ulysses_sizes: 4}"
    assert [d.code for d in compile_config(config, flux, Request(28, 4)).diagnostics] == [
        "unknown-key"
    ]
