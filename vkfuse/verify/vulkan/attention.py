"""Rotary embeddings and attention."""

import math

import torch

from vkfuse.runtime.operators.attention import rows_reached
from vkfuse.verify.vulkan.call import Call


def apply_rotary_emb(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    """`(q [B, S, H, D], k, cos [S, D/2], sin)`: neighbouring values are pairs; glsl/rotary_embedding.glsl."""
    cos, sin = (call.tensor(at).float()[:, None, :] for at in (2, 3))
    return _pairs_turned(call.tensor(0), cos, sin), _pairs_turned(call.tensor(1), cos, sin)


def apply_rotary_emb_interleaved(call: Call) -> torch.Tensor:
    """`(x [B, N, C], (cos, sin) pairs, N * C values)`: glsl/apply_rotary_emb_interleaved.glsl."""
    x = call.tensor(0)
    turns = call.tensor(1).float().reshape(x.shape[-2], x.shape[-1] // 2, 2)
    return _pairs_turned(x, turns[..., 0], turns[..., 1])


def _pairs_turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    even, odd = x[..., 0::2].float(), x[..., 1::2].float()
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def apply_rotary_emb_hf(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    """`(q [B, S, H, D], k, cos [positions, R], sin, start)`: halves are pairs, columns past R stay.

    The coefficients come from the first half of a row only; glsl/rotary_embedding_hf.glsl.
    """
    q, k = call.tensor(0), call.tensor(1)
    cos, sin = call.tensor(2).float(), call.tensor(3).float()
    start = int(call.args[4])
    rows = slice(start, start + q.shape[-3])
    half = cos.shape[-1] // 2
    cos, sin = cos[rows, None, :half], sin[rows, None, :half]
    return _halves_turned(q, cos, sin), _halves_turned(k, cos, sin)


def _halves_turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = cos.shape[-1]
    first, second, rest = torch.split(x.float(), [half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


def sdpa(call: Call) -> torch.Tensor:
    """`(q [B, H, S, D], k, v, mask, scale)`: impl/SDPA.cpp, fused_sdpa_impl."""
    q, k, v, mask = call.tensor(0), call.tensor(1), call.tensor(2), call.args[3]
    scale = 1.0 / math.sqrt(q.shape[-1]) if call.args[4] is None else float(call.args[4])
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = torch.matmul(q.float(), k.float().transpose(-2, -1)) * scale
    scores = scores if mask is None else scores + mask.float()
    return torch.matmul(scores.softmax(-1), v.float())


def custom_sdpa(call: Call) -> torch.Tensor:
    """`(q [1, S, H, D], k_cache [1, L, H', D], v_cache, position, mask, dropout, causal, scale)`, causal."""
    return _cached_attention(call.tensor(0), call.tensor(1), call.tensor(2), int(call.args[3]))


def sdpa_with_kv_cache(call: Call) -> torch.Tensor:
    """`(q, k, v, k_cache, v_cache, position, length, mask, dropout, causal, scale)`: writes its own caches, then reads."""
    caches, position = (call.tensor(3), call.tensor(4)), int(call.args[5])
    for cache, fresh in zip(caches, (call.tensor(1), call.tensor(2)), strict=True):
        _write(cache, fresh, position)
    return _cached_attention(call.tensor(0), *caches, position)


def update_cache(call: Call) -> torch.Tensor:
    """`(value [1, S, H, D], cache [1, L, H, D], position)`: the cache, overwritten in place."""
    cache = call.tensor(1)
    _write(cache, call.tensor(0), int(call.args[2]))
    return cache


def _write(cache: torch.Tensor, value: torch.Tensor, position: int) -> None:
    """Rows `value` [1, S, H, D] into a cache from a position on, with zeros behind them."""
    _, rows, heads, columns = value.shape
    cache[:, position : position + rows_reached(columns, rows, heads)] = 0
    cache[:, position : position + rows] = value[:, : cache.shape[1] - position]


def _cached_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, position: int) -> torch.Tensor:
    length = position + q.shape[1]
    groups = q.shape[2] // k.shape[2]
    keys, values = (
        cache[:, :length].float().transpose(1, 2).repeat_interleave(groups, 1) for cache in (k, v)
    )
    scores = torch.matmul(q.float().transpose(1, 2), keys.transpose(-2, -1)) / math.sqrt(q.shape[-1])
    later = torch.ones(q.shape[1], length, dtype=torch.bool).triu(position + 1)
    return torch.matmul(scores.masked_fill(later, -math.inf).softmax(-1), values).transpose(1, 2)
