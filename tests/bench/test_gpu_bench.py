"""What the bench of a GPU does there, at a tiny size on the CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from planner.models.resolve import from_directory
from tests.bench import gpu
from tests.bench.gpu.placements import eager, offloaded, quantized
from tests.bench.gpu.scale import Scale
from tests.bench.inputs import DEMO
from tests.bench.report import Figure, Findings

# A planner and an executor start and load torch.
pytestmark = pytest.mark.timeout(300)

KINDS = {"eager": eager, "float8_per_row": quantized("float8_per_row"), "offloaded": offloaded}


@pytest.fixture(scope="module")
def scale(tmp_path_factory: pytest.TempPathFactory) -> Scale:
    """A picture of 16 tokens, 3 blocks."""
    tiny = Scale(
        "a tiny FLUX",
        torch.device("cpu"),
        torch.float32,
        from_directory(DEMO),
        side=64,
        text_tokens=8,
        channels=(32, 32, 32, 32),
        rounds=2,
        runs=2,
        transformer={
            "num_layers": 1,
            "num_single_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 32,
            "pooled_projection_dim": 32,
            "axes_dims_rope": (4, 6, 6),
        },
    )
    directory = tmp_path_factory.mktemp("checkpoint")
    tiny.checkpoint().save_pretrained(directory)
    return replace(tiny, facts=from_directory(directory))


@pytest.fixture(scope="module")
def findings(scale: Scale) -> Findings:
    return gpu.found(scale, "", KINDS)


def test_every_part_reports(findings: Findings) -> None:
    kinds = ("A step of", "Cached steps of", "a tiny FLUX: what", "A run of", "a tiny FLUX through")
    assert len(findings.tables) == len(kinds) + 1
    for kind, table in zip(kinds, findings.tables, strict=False):
        assert table.title.startswith(kind)
        assert all(len(row) == len(table.headings) for row in table.rows)
    assert all(isinstance(claim.ours, Figure) for claim in findings.claims)
    assert len(findings.claims) == 3


def test_a_run_through_the_service_is_timed(findings: Findings) -> None:
    rows = {row[0]: row[1:] for row in findings.tables[4].rows}
    assert list(rows) == ["first", "uncached", "cache.yaml", "SCM fast"]
    denoising, run, command, said = rows["SCM fast"]
    assert isinstance(denoising, Figure)
    assert isinstance(run, Figure)
    assert isinstance(command, Figure)
    assert 0 < denoising.value < run.value < command.value
    assert str(said).count("█") == 11


def test_a_placement_that_fails_says_why_and_the_others_stay(findings: Findings) -> None:
    rows = {row[0]: row[1:] for row in findings.tables[5].rows}
    assert rows.keys() == KINDS.keys()
    _, once, *_ = rows["eager"]
    assert isinstance(once, Figure)
    assert once.value == 1
    assert "Error" in str(rows["float8_per_row"][0])


def test_a_part_that_fails_says_why_and_the_others_stay(
    scale: Scale, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(scale: Scale) -> None:
        raise OSError("no room\non the device")

    monkeypatch.setattr(gpu, "service", broken)
    *_, run, service, placements = gpu.found(scale, "", {"eager": eager}).tables
    assert run.title.startswith("A run of")
    assert service.rows == (("The service", "OSError: no room"),)
    assert placements.rows[0][0] == "eager"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_without_a_gpu_there_is_nothing_to_measure() -> None:
    with pytest.raises(RuntimeError, match="no CUDA device"):
        gpu.measure(look=True)
