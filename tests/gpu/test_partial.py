"""Attention to parts of the keys on a GPU, whose kernels have log-sum-exps of their own."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
import torch

from executor.parallel import float8
from executor.parallel.partial import Part, merged, partial_attention
from tests.executor.parallel.test_partial import whole

ROUNDING = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.mark.parametrize("channels", [16, 64, 128])
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("real", [None, 80, 33], ids=lambda n: f"{n}-real")
@pytest.mark.parametrize("parts", [[80], [37, 43], [1, 0, 79], [20, 20, 20, 20]], ids=str)
def test_parts_make_the_whole(
    cuda: torch.device, parts: list[int], real: int | None, dtype: torch.dtype, channels: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, tokens, 3, channels, generator=generator).to(cuda, dtype)
        for tokens in (41, 80, 80)
    )
    mask = None if real is None else (torch.arange(80, device=cuda) < real).expand(2, 1, 1, 80)
    found: Part | None = None
    for start, stop in pairwise([0, *accumulate(parts)]):
        here = None if mask is None else mask[..., start:stop]
        part = partial_attention(query, key[:, start:stop], value[:, start:stop], here, None)
        assert part[1].dtype is torch.float32
        found = part if found is None else merged(found, part)
    assert found is not None
    wanted = whole(query.float(), key.float(), value.float(), mask)
    torch.testing.assert_close(found[0].float(), wanted, rtol=0, atol=ROUNDING[dtype])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_eight_bits_are_those_of_the_cpu(cuda: torch.device, dtype: torch.dtype) -> None:
    """But for quotients between two numbers, of which either may be taken."""
    values = torch.randn(64, 3, 128, generator=torch.Generator().manual_seed(1)).to(dtype)
    payload = float8.encoded(values.to(cuda))
    decoded = float8.decoded(payload, tuple(values.shape), dtype)
    wanted = float8.decoded(float8.encoded(values), tuple(values.shape), dtype)
    torch.testing.assert_close(decoded.cpu(), wanted, rtol=2**-3, atol=0)
    assert (decoded.cpu() != wanted).float().mean() < 0.01
