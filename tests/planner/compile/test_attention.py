"""Which attention backends there are, and which of them a model and a mesh can have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.compile.compiler import Compilation, compile_config, compile_program
from planner.compile.request import Request
from planner.config.attention import UNSUPPORTED
from planner.diagnostics import Severity, has_errors
from planner.models.resolve import from_name

MASKED = "hunyuanvideo-community/HunyuanVideo"
PLAIN = "black-forest-labs/FLUX.1-dev"


def compiled(config: str, name: str = PLAIN) -> Compilation:
    return compile_config(config, from_name(name), Request(4))


def codes(compilation: Compilation) -> list[tuple[str, str]]:
    assert (compilation.program is None) == has_errors(compilation.diagnostics)
    return [(d.code, d.field) for d in compilation.diagnostics]


@pytest.mark.parametrize(
    ("written", "meant"),
    [("natve", "native"), ("Flash", "flash"), ("flash_3", "_flash_3"), ("sage_hubb", "sage_hub")],
)
@pytest.mark.parametrize("section", ["", "parallelism_config."])
def test_an_unknown_name_gets_its_did_you_mean_and_the_list(
    written: str, meant: str, section: str
) -> None:
    text = f"attention_backend: {written}"
    if section:
        text = f"parallelism_config: {{tp_size: 2, {text}}}"
    compilation = compiled(text)
    (found,) = compilation.diagnostics
    assert (found.code, found.field) == ("invalid-value", f"{section}attention_backend")
    assert found.hint == f"did you mean {meant}?"
    assert "allowed: native, " in found.message
    assert compilation.program is None


@pytest.mark.parametrize("backend", ["native", "_flash_3", "flash", "sage_blackwell_hub"])
def test_names_of_diffusers_are_known(backend: str) -> None:
    assert codes(compiled(f"attention_backend: {backend}")) == []


@pytest.mark.parametrize("section", ["", "parallelism_config."])
def test_another_name_for_the_same_is_read_as_that(section: str) -> None:
    text = "attention_backend: _sdpa_cudnn"
    if section:
        text = f"parallelism_config: {{tp_size: 2, {text}}}"
    compilation = compiled(text)
    (found,) = compilation.diagnostics
    assert (found.severity, found.field) == (Severity.HINT, f"{section}attention_backend")
    assert found.hint == "attention_backend: _native_cudnn"
    assert compilation.program is not None
    assert compilation.program.attention_backend == "_native_cudnn"


@pytest.mark.parametrize("backend", UNSUPPORTED)
@pytest.mark.parametrize("section", ["", "parallelism_config."])
def test_what_no_executor_can_have_is_refused_with_what_can_be_had(
    backend: str, section: str
) -> None:
    text = f"attention_backend: {backend}"
    if section:
        text = f"parallelism_config: {{tp_size: 2, {text}}}"
    compilation = compiled(text)
    (found,) = compilation.diagnostics
    assert (found.code, found.field) == ("unsupported-value", f"{section}attention_backend")
    assert found.message.startswith(f"{backend} ")
    assert "allowed: native, " in found.message
    assert codes(compiled(found.hint)) == []
    assert compilation.program is None


@pytest.mark.parametrize(
    ("backend", "sizes", "fits"),
    [
        ("sage", "ring_size: 2", False),
        ("_native_math", "ring_size: 2, ulysses_size: 2", False),
        ("_native_flash", "ring_size: 2", True),
        ("native", "ring_size: 2", True),
        ("sage", "ring_size: 2, ring_rotate_method: allgather", True),
        ("sage", "ulysses_size: 2", True),
    ],
)
def test_a_ring_that_passes_on_needs_partial_results(backend: str, sizes: str, fits: bool) -> None:
    compilation = compiled(f"attention_backend: {backend}\nparallelism_config: {{{sizes}}}")
    assert codes(compilation) == ([] if fits else [("unmerged-attention", "attention_backend")])
    for found in compilation.diagnostics:
        assert found.hint == "ring_rotate_method: allgather, or attention_backend: native"
    inside = compiled(f"parallelism_config: {{{sizes}, attention_backend: {backend}}}")
    assert (inside.program is None) != fits


@pytest.mark.parametrize(
    ("backend", "sizes", "fits"),
    [
        ("flash", "", False),
        ("flash", "ulysses_size: 2", False),
        ("xformers", "", True),
        ("native", "ulysses_size: 2, ring_size: 2", True),
        ("flash_varlen", "ring_size: 2, ring_rotate_method: allgather", True),
        ("xformers", "ulysses_size: 2", True),
        ("xformers", "tp_size: 2", True),
    ],
)
def test_a_masked_prompt_needs_a_backend_that_masks(backend: str, sizes: str, fits: bool) -> None:
    text = f"attention_backend: {backend}\n" + (
        f"parallelism_config: {{{sizes}}}\n" if sizes else ""
    )
    faults = [] if fits else [("masked-attention", "attention_backend")]
    assert codes(compiled(text, MASKED)) == faults
    assert codes(compiled(text, PLAIN)) == []


@pytest.mark.parametrize(("scale", "fits"), [(0.0, True), (4.0, False)])
def test_prompts_of_two_lengths_in_one_forward_are_masked(scale: float, fits: bool) -> None:
    compilation = compile_config(
        "attention_backend: flash",
        from_name("Tongyi-MAI/Z-Image-Turbo"),
        Request(4, guidance_scale=scale),
    )
    assert codes(compilation) == ([] if fits else [("masked-attention", "attention_backend")])


def test_a_stored_plan_is_held_to_the_same() -> None:
    program = compiled("attention_backend: native", MASKED).program
    assert program is not None
    for backend in ("flash", "natve", "sage3"):
        other = replace(program, attention_backend=backend)
        (found,) = compile_program(other, from_name(MASKED), Request()).diagnostics
        assert found.field == "program.attention_backend"


def test_a_stored_ring_is_held_to_the_same() -> None:
    program = compiled("parallelism_config: {ring_size: 2}").program
    assert program is not None
    other = replace(program, attention_backend="sage")
    (found,) = compile_program(other, from_name(PLAIN), Request()).diagnostics
    assert found.field == "program.attention_backend"
    assert "ring_rotate_method: p2p" in found.message


@pytest.mark.parametrize(
    ("name", "elsewhere"),
    [
        (PLAIN, True),
        ("black-forest-labs/FLUX.2-dev", True),
        ("Qwen/Qwen-Image", True),
        ("Tongyi-MAI/Z-Image-Turbo", True),
        ("Wan-AI/Wan2.2-T2V-A14B-Diffusers", False),
        (MASKED, False),
    ],
)
def test_async_ulysses_is_for_more_families_than_elsewhere(name: str, elsewhere: bool) -> None:
    compilation = compiled("parallelism_config: {ulysses_size: 2, ulysses_async: true}", name)
    hints = [] if elsewhere else [("async-family", "parallelism_config.ulysses_async")]
    assert [(d.code, d.field) for d in compilation.diagnostics] == hints
    assert compilation.program is not None
    if not elsewhere:
        assert "FLUX.1, FLUX.2, Qwen-Image, Z-Image" in compilation.diagnostics[0].message
