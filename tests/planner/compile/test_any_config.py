"""Whatever is thrown at the compiler: a program or an error that says why, and no hang."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.codec import program_to_proto, received_program
from planner.compile.compiler import Compilation, compile_config, compile_program
from planner.compile.request import Request
from planner.config.schema import CacheConfig, ParallelismConfig, QuantizeConfig
from planner.config.spellings import QUANT_TYPES, UNSUPPORTED
from planner.diagnostics import has_errors
from planner.models.catalog import NAMED
from planner.models.facts import ModelFacts
from planner.models.resolve import from_name

FLUX = from_name("black-forest-labs/FLUX.1-dev")
MODELS = st.sampled_from(sorted(NAMED)).map(from_name)
EXAMPLES = [
    path.read_text()
    for path in sorted((Path(__file__).parents[3] / "deploy" / "examples").iterdir())
]
HANG_SECONDS = 10.0

words = st.sampled_from(
    [
        "auto",
        "fast",
        "slow",
        "static",
        "dynamic",
        "once",
        "residual",
        "vae",
        "DBCache",
        *QUANT_TYPES,
    ]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-2, 60)
    | st.integers()
    | st.sampled_from([0.1, 0.5, 1.0, 1e-8, -1.0, 1e300])
    | words
    | st.text(max_size=5)
)
masks = st.lists(st.integers(0, 1), max_size=30)
bins = st.lists(st.integers(0, 9), max_size=5)
values = (
    scalars
    | masks
    | st.lists(scalars, max_size=3)
    | st.fixed_dictionaries({"compute_bins": bins, "cache_bins": bins})
    | st.dictionaries(words, scalars, max_size=2)
)


def section(name: str, fields: Any) -> st.SearchStrategy[Any]:
    known = st.sampled_from([*fields, *UNSUPPORTED[name]])
    return st.dictionaries(known | st.text(max_size=4), values, max_size=5) | scalars


configs = st.fixed_dictionaries(
    {},
    optional={
        "cache_config": section("cache_config", CacheConfig.model_fields),
        "parallelism_config": section("parallelism_config", ParallelismConfig.model_fields),
        "quantize_config": section("quantize_config", QuantizeConfig.model_fields),
        "attention_backend": values,
    },
)
requests = st.builds(
    Request,
    num_inference_steps=st.none() | st.integers(-1, 60) | st.integers(),
    world_size=st.none() | st.integers(-1, 16) | st.integers(),
    height=st.none() | st.sampled_from([512, 17, 0]) | st.integers(),
    width=st.none(),
    guidance_scale=st.none() | st.floats(),
)
# Parts of a config that damage others when they are moved about.
shreds = st.sampled_from(
    [
        *("{", "}", "[", "]", ": ", "- ", "\n", "  ", "\t", "&a ", "*a", "!!x ", "<<: ", "'", '"'),
        *("#", "|", "? ", "---\n", "\0", "\ufeff", "1e9", "é", "%", "null", "9" * 30),
    ]
)
# Mostly sensible values, so that most of these configs compile.
limits = st.sampled_from([-1, 0, 1, 2, 5])
sizes = st.sampled_from([1, 2, 2, 3, "auto"])
plausible = st.fixed_dictionaries(
    {},
    optional={
        "cache_config": st.fixed_dictionaries(
            {},
            optional={
                "Fn_compute_blocks": st.integers(1, 30),
                "Bn_compute_blocks": st.integers(0, 30),
                "residual_diff_threshold": st.sampled_from([-1, 0.1, 0.2, 1]),
                "max_accumulated_residual_diff_threshold": st.sampled_from([None, -1, 0.5]),
                "max_warmup_steps": limits,
                "warmup_interval": st.integers(1, 4),
                "max_cached_steps": limits,
                "max_continuous_cached_steps": limits,
                "steps_computation_mask": st.sampled_from(["slow", "fast", "ultra"])
                | st.lists(st.just(1), min_size=8, max_size=8)
                | st.just({"compute_bins": [2, 2, 9], "cache_bins": [3, 3]}),
                "steps_computation_policy": st.sampled_from(["dynamic", "static"]),
                "force_refresh_step_hint": st.integers(1, 30),
                "force_refresh_step_policy": st.sampled_from(["once", "repeat"]),
                "enable_taylorseer": st.booleans(),
                "taylorseer_order": st.integers(0, 3),
                "enable_encoder_taylorseer": st.booleans(),
                "enable_foca": st.booleans(),
                "enable_dmd": st.booleans(),
                "dmd_history": st.integers(1, 8),
                "cfg_compute_first": st.booleans(),
                "cfg_diff_compute_separate": st.booleans(),
                "enable_separate_cfg": st.sampled_from([None, True, False]),
                "secondary": st.fixed_dictionaries(
                    {}, optional={"max_warmup_steps": limits, "enable_dmd": st.booleans()}
                ),
            },
        ),
        "parallelism_config": st.fixed_dictionaries(
            {"ulysses_size": sizes},
            optional={"ring_size": sizes, "tp_size": sizes, "ulysses_float8": st.booleans()},
        ),
        "quantize_config": st.fixed_dictionaries(
            {}, optional={"quant_type": st.sampled_from(["float8", "int8_per_tensor"])}
        ),
        "attention_backend": st.sampled_from(["flash", "native"]),
    },
)
plausible_requests = st.builds(
    Request,
    st.sampled_from([1, 8, 8, 16, 28, None]),
    st.sampled_from([None, 2, 4]),
    guidance_scale=st.sampled_from([None, 1.0, 4.0]),
    negative_prompt=st.booleans(),
    device=st.sampled_from([None, "cpu", "sm80", "sm90"]),
)


def check(config: str | bytes, request: Request, model: ModelFacts = FLUX) -> Compilation:
    start = time.process_time()
    compilation = compile_config(config, model, request)
    assert time.process_time() - start < HANG_SECONDS
    assert has_errors(compilation.diagnostics) is (compilation.program is None)
    assert (compilation.program is None) is (compilation.estimate is None)
    for found in compilation.diagnostics:
        assert found.message
        assert len(found.message) + len(found.hint) < 2000
    if compilation.program is not None:
        # What compiles can be sent, read, checked and compiled again.
        message = program_to_proto(compilation.program)
        assert received_program(message) == compilation.program
        again = compile_program(compilation.program, model, compilation.request)
        assert again.program == compilation.program, again.diagnostics
        assert again.estimate == compilation.estimate
    return compilation


@settings(max_examples=400)
@given(configs | values, requests, MODELS)
def test_any_structure(config: Any, request: Request, model: ModelFacts) -> None:
    text = json.dumps(config)
    assert check(text, request, model) == check(text, request, model)


@settings(max_examples=400)
@given(plausible, plausible_requests, MODELS)
def test_any_plausible_config(config: Any, request: Request, model: ModelFacts) -> None:
    check(json.dumps(config), request, model)


@settings(max_examples=400)
@given(st.sampled_from(EXAMPLES), st.lists(st.tuples(st.integers(0, 700), shreds), max_size=4))
def test_any_damage_to_an_example(text: str, damage: list[tuple[int, str]]) -> None:
    for position, shred in damage:
        at = position % (len(text) + 1)
        text = text[:at] + shred + text[at:]
    check(text, Request(28, 4))


@settings(max_examples=200)
@given(st.sampled_from(EXAMPLES), st.integers(0, 700), st.integers(0, 40))
def test_any_loss_from_an_example(text: str, start: int, length: int) -> None:
    check(text[:start] + text[start + length :], Request(28, 4))


@settings(max_examples=200)
@given(st.text(max_size=80) | st.binary(max_size=80))
def test_any_text(text: str | bytes) -> None:
    check(text, Request())
