"""What every rank has to hold alike."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from executor.checkpoints import checkpoint as checkpoints
from executor.placement.load import LoadedPipeline
from executor.placement.placement import UNSHARED
from executor.placement.split import Share
from executor.runtime.held import Held
from executor.runtime.holding import differences, holding


def test_copies_have_one_digest_and_other_weights_another(checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    digest = checkpoints.inspect(checkpoint).digest
    assert checkpoints.inspect(copy).digest == digest
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    # The header stays as it is: an architecture has many checkpoints.
    data[-1] ^= 1
    weights.write_bytes(data)
    assert checkpoints.inspect(copy).digest != digest


def test_what_a_rank_holds_is_read_once(
    loaded: LoadedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled = []
    sample = checkpoints.sample_weights
    monkeypatch.setattr(
        checkpoints, "sample_weights", lambda weights: sampled.append(weights) or sample(weights)
    )
    held = Held(lambda placement: loaded, UNSHARED)
    assert holding(held.loaded, held.digest).checkpoint_digest == held.digest
    assert sampled == [weights for _, weights in sorted(loaded.checkpoint.weights.items())]


def test_what_differs_is_named_with_its_rank(loaded: LoadedPipeline) -> None:
    mine = holding(loaded, loaded.checkpoint.digest)
    assert differences(3, mine, mine) == []
    theirs = holding(replace(loaded, share=Share(3, 1, 2, ("text_encoder",))), "0" * 64)
    theirs.attention_backends[:] = ["native"]
    assert differences(3, theirs, mine) == [
        f"rank 3 holds another checkpoint: {'0' * 12}, not {mine.checkpoint_digest[:12]}",
        "rank 3 holds another tp_size: 2, not 1",
        "rank 3 holds another extra_parallel_modules: text_encoder, not none",
        "rank 3 holds another attention_backends: native, not "
        "_native_flash, _native_math, flex, native",
    ]
