"""Where values come from: the request before the file, the file before the environment."""

from __future__ import annotations

import pytest

from planner.compile.compiler import Compilation, compile_config
from planner.compile.explanation import explain_step
from planner.compile.request import Request
from planner.compile.sources import Source
from planner.models.facts import ModelFacts
from planner.models.resolve import from_name

ON = {"SGLANG_CACHE_DIT_ENABLED": "true"}
TEXT = """\
cache_config:
  Fn_compute_blocks: 2
  num_inference_steps: 12
parallelism_config: {ulysses: 2}
attention_backend: native
"""


def origins(compilation: Compilation) -> dict[str, tuple[object, str, int]]:
    assert compilation.program is not None, compilation.diagnostics
    found = {s.key: (s.value, s.origin, s.line) for s in compilation.sources}
    assert len(found) == len(compilation.sources)
    return found


def test_every_value_knows_its_origin(flux: ModelFacts) -> None:
    variables = ON | {"SGLANG_CACHE_DIT_WARMUP": "6"}
    found = origins(compile_config(TEXT, flux, Request(width=512), variables))
    assert found["num_inference_steps"] == (12, "file", 3)
    assert found["width"] == (512, "request", 0)
    assert found["height"] == (1024, "default", 0)
    assert found["cache_config.Fn_compute_blocks"] == (2, "file", 2)
    assert found["cache_config.max_warmup_steps"] == (6, "SGLANG_CACHE_DIT_WARMUP", 0)
    assert found["cache_config.residual_diff_threshold"] == (0.08, "default", 0)
    assert found["parallelism_config.ulysses_size"] == (2, "file", 4)
    assert found["parallelism_config.tp_size"] == (None, "default", 0)
    assert found["attention_backend"] == ("native", "file", 5)
    assert not any(key.startswith("quantize_config") for key in found)


def test_the_request_goes_before_the_file(flux: ModelFacts) -> None:
    found = origins(compile_config(TEXT, flux, Request(20, 2)))
    assert found["num_inference_steps"] == (20, "request", 0)


def test_the_flat_form_has_lines_too(flux: ModelFacts) -> None:
    found = origins(compile_config("\nFn_compute_blocks: 2", flux, Request(8)))
    assert found["cache_config.Fn_compute_blocks"] == (2, "file", 2)


def test_defaults_of_sglang_are_defaults(flux: ModelFacts) -> None:
    compilation = compile_config("", flux, Request(8), ON)
    found = origins(compilation)
    assert found["cache_config.residual_diff_threshold"] == (0.24, "default", 0)
    assert compilation.program is not None
    assert compilation.program.columns[0].fn_compute_blocks == 1


def test_values_of_a_second_transformer_stand_apart() -> None:
    wan22 = from_name("Wan-AI/Wan2.2-T2V-A14B-Diffusers")
    variables = ON | {"SGLANG_CACHE_DIT_SECONDARY_FN": "3"}
    compilation = compile_config("", wan22, Request(20), variables)
    source = Source("cache_config.secondary.Fn_compute_blocks", 3, "SGLANG_CACHE_DIT_SECONDARY_FN")
    assert [s for s in compilation.sources if "secondary" in s.key] == [source]
    assert compilation.program is not None
    assert [c.fn_compute_blocks for c in compilation.program.columns] == [1, 1, 3, 3]


@pytest.mark.parametrize(
    ("variables", "field", "hint"),
    [
        ({"FN": "99"}, "FN", "together at most 57"),
        ({"TAYLORSEER": "true", "DMD": "true"}, "DMD", "SGLANG_CACHE_DIT_DMD=false"),
        ({"SCM_COMPUTE_BINS": "2", "SCM_CACHE_BINS": "1"}, "SCM_COMPUTE_BINS", "widen"),
    ],
)
def test_what_cannot_run_is_said_of_the_variable(
    variables: dict[str, str], field: str, hint: str, flux: ModelFacts
) -> None:
    named = {f"SGLANG_CACHE_DIT_{name}": value for name, value in variables.items()}
    (found,) = compile_config("", flux, Request(8), ON | named).diagnostics
    assert (found.field, found.line) == (f"SGLANG_CACHE_DIT_{field}", 0)
    assert hint in found.hint


def test_explain_follows_the_variables(flux: ModelFacts) -> None:
    variables = ON | {"SGLANG_CACHE_DIT_WARMUP": "7"}
    (account,) = explain_step("", flux, Request(8), 6, variables).accounts
    assert "within the 7 warm-up steps" in account.tests[-1].says


def test_a_compilation_reads_no_environment_by_itself(
    flux: ModelFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGLANG_CACHE_DIT_ENABLED", "true")
    compilation = compile_config("", flux, Request(8))
    assert compilation.program is not None
    assert compilation.program.columns[0].calibrator is None
