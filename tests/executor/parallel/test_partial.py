"""Attention to parts of the keys, put together, is attention to all of them."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from executor.parallel import float8
from executor.parallel.partial import merged, partial_attention


def tensors(keys: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(2, tokens, 3, 16, generator=generator).to(dtype) for tokens in (5, keys, keys)
    )


def whole(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    q, k, v = (each.transpose(1, 2) for each in (query, key, value))
    return scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


@pytest.mark.parametrize("parts", [[8], [3, 5], [1, 0, 7], [2, 2, 2, 2]])
@pytest.mark.parametrize("real", [None, 8, 3, 2], ids=lambda n: f"{n}-real")
def test_parts_make_the_whole(parts: list[int], real: int | None) -> None:
    query, key, value = tensors(8)
    mask = None if real is None else (torch.arange(8) < real).expand(2, 1, 1, 8)
    found = None
    for start, stop in pairwise([0, *accumulate(parts)]):
        here = None if mask is None else mask[..., start:stop]
        part = partial_attention(query, key[:, start:stop], value[:, start:stop], here, None)
        found = part if found is None else merged(found, part)
    assert found is not None
    torch.testing.assert_close(found[0], whole(query, key, value, mask), rtol=0, atol=1e-6)


def test_rows_may_differ_in_padding() -> None:
    query, key, value = tensors(8)
    mask = (torch.arange(8) < torch.tensor([[8], [2]])).view(2, 1, 1, 8)
    first, second = (
        partial_attention(query, key[:, part], value[:, part], mask[..., part], None)
        for part in (slice(0, 4), slice(4, 8))
    )
    result, _ = merged(first, second)
    torch.testing.assert_close(result, whole(query, key, value, mask), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_eight_bits_keep_every_row_to_its_own_scale(dtype: torch.dtype) -> None:
    values = torch.randn(4, 3, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    # Rows of very different size, and one of nothing.
    values *= torch.tensor([1e-3, 1.0, 1e3, 0.0], dtype=dtype).view(4, 1, 1)
    payload = float8.encoded(values)
    assert payload.dtype == torch.uint8
    assert payload.numel() == float8.payload_bytes(values.numel(), 16) == 4 * 3 * (16 + 4)
    decoded = float8.decoded(payload, tuple(values.shape), dtype)
    largest = values.abs().amax(dim=-1, keepdim=True).float()
    # Three bits of mantissa: half of the last is 1/16 of the value.
    assert ((decoded - values).abs().float() <= largest / 16 + 1e-12).all()
    assert (decoded[3] == 0).all()
