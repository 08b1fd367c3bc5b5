"""Attention to some of the keys, and how the results for all of them are put together.

Tensors are (batch, tokens, heads, channels); the log-sum-exp of the scores, which weighs a partial
result, is (batch, heads, tokens), fp32.
"""

from __future__ import annotations

import torch
from torch import Tensor

Part = tuple[Tensor, Tensor]
"""A result and its log-sum-exp."""

# Whose kernels compute the parts. The former takes no mask, and on CUDA no fp32, either.
_BACKENDS = ("_native_flash", "native")

_HALVES = (torch.float16, torch.bfloat16)

# Of elements.
_ALIGNMENT = 16


def merge_fault(ring_size: int, ring_rotate_method: str, backend: str) -> str | None:
    """Why ranks cannot attend in such a ring with a backend; None where they can."""
    if ring_size <= 1 or ring_rotate_method == "allgather" or backend in _BACKENDS:
        return None
    return (
        f"ring_rotate_method {ring_rotate_method} merges partial results, which attention backend "
        f"{backend} does not give; {', '.join(_BACKENDS)} do, and allgather needs none"
    )


def partial_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
) -> Part:
    """``mask`` is (batch, 1, 1, keys), false where a key is not attended to; maybe at all."""
    if not key.shape[1]:
        batch, tokens, heads, _ = query.shape
        return torch.zeros_like(query), _nothing(query.new_empty(batch, heads, tokens))
    q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
    out, weight = _on_cuda(q, k, v, mask, scale) if q.is_cuda else _on_cpu(q, k, v, mask, scale)
    out, weight = out.transpose(1, 2), weight.float()
    if mask is not None:
        # Of nothing but padding there is no result, only not-a-number.
        seen = mask.any(dim=-1, keepdim=True)
        out = torch.where(seen.view(-1, 1, 1, 1), out, 0)
        weight = torch.where(seen.view(-1, 1, 1), weight, -torch.inf)
    return out, weight


def merged(first: Part, second: Part) -> Part:
    """The result for the keys of both."""
    weight = torch.logaddexp(first[1], second[1])
    # Where nothing has been seen yet, nothing weighs anything.
    known = weight.clamp(min=torch.finfo(weight.dtype).min)
    out = sum(
        out * torch.exp(own - known).transpose(1, 2).unsqueeze(-1).to(out.dtype)
        for out, own in (first, second)
    )
    assert isinstance(out, Tensor)
    return out, weight


def _nothing(like: Tensor) -> Tensor:
    return torch.full(like.shape, -torch.inf, device=like.device)


def _on_cpu(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
) -> Part:
    out, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, attn_mask=_additive(mask, query), scale=scale
    )
    return out, weight


def _on_cuda(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
) -> Part:
    if mask is None and query.dtype in _HALVES:
        out, weight, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, scale=scale
        )
        return out, weight
    bias = None
    if mask is not None:
        # The kernel reads rows from aligned addresses only.
        keys = key.shape[2]
        room = query.new_empty(*mask.shape[:-1], -(-keys // _ALIGNMENT) * _ALIGNMENT)
        bias = room[..., :keys].zero_().masked_fill_(~mask, -torch.inf)
        bias = bias.expand(*query.shape[:3], keys)
    out, weight, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, compute_log_sumexp=True, scale=scale
    )
    # The kernel pads the queries of its second result.
    return out, weight[..., : query.shape[2]]


def _additive(mask: Tensor | None, query: Tensor) -> Tensor | None:
    if mask is None:
        return None
    return query.new_zeros(mask.shape).masked_fill_(~mask, -torch.inf)
