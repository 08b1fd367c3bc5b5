"""Which attention backends there are, and which of them a model and a mesh can have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.compile.compiler import Compilation, compile_config, compile_program
from planner.compile.request import Request
from planner.models.resolve import from_name

MASKED = "hunyuanvideo-community/HunyuanVideo"
PLAIN = "black-forest-labs/FLUX.1-dev"


def compiled(config: str, name: str = PLAIN) -> Compilation:
    return compile_config(config, from_name(name), Request(4))


def codes(compilation: Compilation) -> list[tuple[str, str]]:
    assert (compilation.program is None) == bool(compilation.diagnostics)
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


@pytest.mark.parametrize("backend", ["native", "_flash_3", "flash", "sage3", "_mindiesd_laser"])
def test_names_of_diffusers_and_of_cache_dit_are_known(backend: str) -> None:
    assert codes(compiled(f"attention_backend: {backend}")) == []


@pytest.mark.parametrize(
    ("backend", "sizes", "fits"),
    [
        ("flash", "", False),
        ("xformers", "", True),
        ("native", "ulysses_size: 2, ring_size: 2", True),
        ("flash_varlen", "ring_size: 2", True),
        ("xformers", "ulysses_size: 2", False),
        ("xformers", "tp_size: 2", True),
        ("flash_varlen_hub", "ulysses_size: 2", True),
        ("flash_varlen_hub", "ring_size: 2", False),
        ("sage3", "ring_size: 2", False),
    ],
)
def test_a_masked_prompt_needs_a_backend_that_masks(backend: str, sizes: str, fits: bool) -> None:
    text = f"attention_backend: {backend}\n" + (
        f"parallelism_config: {{{sizes}}}\n" if sizes else ""
    )
    faults = [] if fits else [("masked-attention", "attention_backend")]
    assert codes(compiled(text, MASKED)) == faults
    assert codes(compiled(text, PLAIN)) == []


def test_a_stored_plan_is_held_to_the_same() -> None:
    program = compiled("attention_backend: native", MASKED).program
    assert program is not None
    for backend in ("flash", "natve"):
        other = replace(program, attention_backend=backend)
        (found,) = compile_program(other, from_name(MASKED), Request()).diagnostics
        assert found.field == "program.attention_backend"


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
