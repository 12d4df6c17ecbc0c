"""What language models are made of, as people write it: attention, positions, caches, states, experts, tables.

The numbers of these kinds, and of those in kinds_layers.py, are from 3,000,000 on; kinds.py says what a kind is.
"""

# ruff: noqa: D103, PLR0911, PLR0913 - a step computes what its one line says; a return a way to write it, a parameter a choice

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from kinds import FLOATS, Given, View, kind_of, last_static, when
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own way to write it
from torchao.quantization import IntxWeightOnlyConfig
from torchao.quantization.granularity import PerAxis, PerGroup

_LONGEST: Final = 300  # rows that attend to each other: scores of more are large
_WIDEST: Final = 512  # columns, of which there are square matrices


def _attends(view: View) -> bool:
    """Whether a value is a batch of sequences of which heads can be made."""
    short = view.rank == 3 and last_static(view) and view.longest[1] <= _LONGEST
    return short and view.shape[2] % 4 == 0 and 8 <= view.shape[2] <= _WIDEST


def _in_heads(view: View) -> bool:
    return view.rank == 4 and last_static(view) and view.shape[3] % 2 == 0 and view.longest[2] <= _LONGEST


# --- positions


def _angles(x: Tensor, at: Tensor) -> Tensor:
    """Angles [positions, half the columns] of rotary embeddings."""
    half = x.shape[-1] // 2
    steps = torch.arange(0, half, dtype=torch.float32, device=x.device) / half
    return torch.outer(at.to(torch.float32), 1.0 / (100.0**steps))


def _half(x: Tensor, angles: Tensor) -> Tensor:
    doubled = torch.cat((angles, angles), -1)
    a, b = x.chunk(2, -1)
    return x * doubled.cos().to(x.dtype) + torch.cat((-b, a), -1) * doubled.sin().to(x.dtype)


def _half_sliced(x: Tensor, angles: Tensor) -> Tensor:
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def _interleaved(x: Tensor, angles: Tensor) -> Tensor:
    cos, sin = (part.repeat_interleave(2, -1).to(x.dtype) for part in (angles.cos(), angles.sin()))
    turned = torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)
    return x * cos + turned * sin


def _pairs(x: Tensor, angles: Tensor) -> Tensor:
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x.float().unflatten(-1, (x.shape[-1] // 2, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).type_as(x)


def _complex(x: Tensor, angles: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], x.shape[-1] // 2, 2))
    turns = torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)


def _partial(x: Tensor, angles: Tensor) -> Tensor:
    half = x.shape[-1] // 4 * 2
    if not half:
        return _half(x, angles)
    return torch.cat((_half(x[..., :half], angles[:, : half // 2]), x[..., half:]), -1)


def _assigned(x: Tensor, angles: Tensor) -> Tensor:
    half, out = x.shape[-1] // 2, torch.empty_like(x)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    out[..., :half] = x[..., :half] * cos - x[..., half:] * sin
    out[..., half:] = x[..., half:] * cos + x[..., :half] * sin
    return out


_TURNS: Final[Mapping[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "half": _half,
    "sliced": _half_sliced,
    "interleaved": _interleaved,
    "pairs": _pairs,
    "complex": _complex,
    "partial": _partial,
    "assigned": _assigned,
}


def _position(_view: View, drawn: Mapping[str, Any]) -> Sequence[Given]:
    """The position of the first row, where the arguments ask for one."""
    wanted = drawn["where"] == "input"
    return [{"shape": [1], "dtype": "int64", "rows": 50}] if wanted else []


@kind_of(
    FLOATS,
    how=when(lambda v: _in_heads(v) or _attends(v), tuple(_TURNS)),
    where=("start", "input", "table"),
    further=_position,
    later=3,
)
def rotary_any(c: Any, x: Tensor, start: Tensor | None = None, *, how: str, where: str) -> Tensor:
    at = torch.arange(x.shape[-2], device=x.device)
    if where == "table":
        table = c.new((_LONGEST, x.shape[-1] // 2), torch.empty(0, device=x.device))
        return _TURNS[how](x, table[: x.shape[-2]])
    return _TURNS[how](x, _angles(x, at if start is None else at + start))


@kind_of(FLOATS, how=when(_attends, ("sinusoidal", "learned", "learned_sliced", "cumsum")), later=3)
def positions_added(c: Any, x: Tensor, *, how: str) -> Tensor:
    rows, columns = x.shape[1], x.shape[2]
    if how == "sinusoidal":
        angles = _angles(x, torch.arange(rows, device=x.device))
        return x * math.sqrt(columns) + torch.cat((angles.sin(), angles.cos()), -1).to(x.dtype)
    table = c.new((_LONGEST, columns), x)
    if how == "learned":
        return x + F.embedding(torch.arange(rows, device=x.device), table)
    if how == "learned_sliced":
        return x + table[:rows]
    return x + F.embedding(torch.ones(x.shape[:2], dtype=torch.int64, device=x.device).cumsum(1), table)


# --- masks: of scores [batch, heads, rows, columns], rows at the end of the columns


def _lowest(x: Tensor) -> float:
    return torch.finfo(x.dtype).min


def _places(x: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    return torch.arange(rows, device=x.device)[:, None], torch.arange(columns, device=x.device)


def _tril(x: Tensor, rows: int, columns: int) -> Tensor:
    return torch.ones(rows, columns, dtype=torch.bool, device=x.device).tril()


def _triu_infinite(x: Tensor, rows: int, columns: int) -> Tensor:
    return torch.full((rows, columns), -torch.inf, dtype=x.dtype, device=x.device).triu(1)


def _compared(x: Tensor, rows: int, columns: int) -> Tensor:
    row, column = _places(x, rows, columns)
    return column <= row


def _least(x: Tensor, rows: int, columns: int) -> Tensor:
    row, column = _places(x, rows, columns)
    return torch.zeros(rows, columns, dtype=x.dtype, device=x.device).masked_fill(column > row, _lowest(x))


def _multiplied(x: Tensor, rows: int, columns: int) -> Tensor:
    row, column = _places(x, rows, columns)
    return (column > row).to(x.dtype) * _lowest(x)


def _subtracted(x: Tensor, rows: int, columns: int) -> Tensor:
    return (1.0 - _tril(x, rows, columns).to(x.dtype)) * -10000.0


def _window(x: Tensor, rows: int, columns: int) -> Tensor:
    row, column = _places(x, rows, columns)
    return (column <= row) & (column > row - 3)


def _window_both(x: Tensor, rows: int, columns: int) -> Tensor:
    row, column = _places(x, rows, columns)
    return torch.where((row - column).abs() <= 2, 0.0, -torch.inf).to(x.dtype)


def _chunked(x: Tensor, rows: int, columns: int) -> Tensor:
    row, column = _places(x, rows, columns)
    return (column <= row) & (
        torch.div(column, 4, rounding_mode="floor") == torch.div(row, 4, rounding_mode="floor")
    )


def _alibi(x: Tensor, rows: int, columns: int) -> Tensor:
    row, column = _places(x, rows, columns)
    slope = torch.tensor([0.5, 0.25], device=x.device)[:, None, None]
    return ((column - row) * slope).to(x.dtype)[:1] + _triu_infinite(x, rows, columns)


def _relative(x: Tensor, rows: int, columns: int) -> Tensor:
    row, column = _places(x, rows, columns)
    return -(row - column).abs().clamp(max=5).to(x.dtype) * 0.3


_MASKS: Final[Mapping[str, Callable[[Tensor, int, int], Tensor]]] = {
    "tril": _tril,
    "triu_infinite": _triu_infinite,
    "compared": _compared,
    "least": _least,
    "multiplied": _multiplied,
    "subtracted": _subtracted,
    "window": _window,
    "window_both": _window_both,
    "chunked": _chunked,
    "alibi": _alibi,
    "relative": _relative,
}
_GIVEN: Final = {"given": "mask", "given_bool": "kept", "given_padding": "kept"}


def _mask_given(view: View, drawn: Mapping[str, Any]) -> Sequence[Given]:
    """The mask as an input, where the arguments ask for one: floats, whether to read, or which tokens are padding."""
    if drawn["mask"] not in _GIVEN:
        return []
    batch, rows, _ = view.named
    shape = [batch, rows] if drawn["mask"] == "given_padding" else [batch, 1, rows, rows]
    types = {"given": str(view.dtype).removeprefix("torch.")}
    return [{"shape": shape, "dtype": types.get(drawn["mask"], "bool"), "fill": _GIVEN[drawn["mask"]]}]


def _masks(view: View) -> Sequence[str]:
    if not _attends(view):
        return ()
    given = () if None in view.named else (*_GIVEN,)
    return (*_MASKS, *given, "none", "causal", "tril", "compared")


def _projected(c: Any, x: Tensor, out: int, how: str) -> Tensor:
    if how == "int4" and x.shape[-1] % 32 == 0:
        return c.linear_int4(x, out, bias=False)
    if how == "one" or not how:
        return F.linear(x, c.new((out, x.shape[-1]), x, 1 / math.sqrt(x.shape[-1])))
    return F.linear(x, c.new((out, x.shape[-1]), x, 1 / math.sqrt(x.shape[-1])), c.new((out,), x))


def _repeated(x: Tensor, times: int, how: str) -> Tensor:
    """Key or value heads [batch, heads, rows, columns], each `times` times."""
    if times == 1:
        return x
    if how == "expanded":
        batch, heads, rows, columns = x.shape
        return (
            x[:, :, None]
            .expand(batch, heads, times, rows, columns)
            .reshape(batch, heads * times, rows, columns)
        )
    if how == "stacked":
        return torch.stack([x] * times, 2).flatten(1, 2)
    return x.repeat_interleave(times, 1)


def _scored(query: Tensor, key: Tensor, mask: Tensor | None, cap: float) -> Tensor:
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if cap:
        scores = torch.tanh(scores / cap) * cap
    if mask is None:
        return scores
    return scores.masked_fill(~mask, -torch.inf) if mask.dtype is torch.bool else scores + mask


def _weighed(c: Any, scores: Tensor, how: str) -> Tensor:
    if how == "sinks":
        batch, heads, rows, _ = scores.shape
        sink = c.new((heads,), scores).reshape(1, heads, 1, 1).expand(batch, heads, rows, 1)
        return torch.softmax(torch.cat([scores, sink], -1), -1)[..., :-1]
    if how == "float":
        return torch.softmax(scores, -1, dtype=torch.float32).to(scores.dtype)
    if how == "by_hand":
        raised = torch.exp(scores - scores.amax(-1, keepdim=True))
        return raised / raised.sum(-1, keepdim=True)
    return torch.softmax(scores, -1)


@kind_of(
    FLOATS,
    mask=_masks,
    how=("sdpa", "sdpa", "gqa", "eager", "float", "sinks", "by_hand"),
    heads=(2, 4),
    shared=(1, 1, 2),
    repeat=("interleaved", "expanded", "stacked"),
    cap=(0.0, 0.0, 0.0, 5.0),
    turn=("", "", *_TURNS),
    project=("int4", "", "bias", "one"),
    normed=(False, False, True),
    further=_mask_given,
    later=3,
)
def attention_any(
    c: Any,
    x: Tensor,
    mask_given: Tensor | None = None,
    *,
    mask: str,
    how: str,
    heads: int,
    shared: int,
    repeat: str,
    cap: float,
    turn: str,
    project: str,
    normed: bool,
) -> Tensor:
    batch, rows, columns = x.shape
    width, kept = columns // heads, heads // shared
    if project == "one":
        parts = _projected(c, x, columns + 2 * kept * width, project).split(
            [columns, kept * width, kept * width], -1
        )
    else:
        parts = [_projected(c, x, out, project) for out in (columns, kept * width, kept * width)]
    query, key, value = (part.view(batch, rows, -1, width).transpose(1, 2) for part in parts)
    if normed:
        query, key = (F.rms_norm(each, (width,), c.new((width,), x), 1e-6) for each in (query, key))
    if turn:
        angles = _angles(query, torch.arange(rows, device=x.device))
        query, key = _TURNS[turn](query, angles), _TURNS[turn](key, angles)
    masked = mask_given
    if mask == "given_padding":
        masked = mask_given[:, None, None, :]
    elif mask in _MASKS or mask == "causal":
        masked = _MASKS["tril" if mask == "causal" else mask](query, rows, rows)
    if how == "gqa" and not cap:
        made = F.scaled_dot_product_attention(query, key, value, masked, enable_gqa=True)
    else:
        key, value = _repeated(key, shared, repeat), _repeated(value, shared, repeat)
        if how == "sdpa" and mask == "causal":
            made = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        elif how == "sdpa":
            made = F.scaled_dot_product_attention(query, key, value, masked, scale=0.3)
        else:
            made = _weighed(c, _scored(query, key, masked, cap), how) @ value
    return x + _projected(c, made.transpose(1, 2).reshape(batch, rows, columns), columns, project)


@kind_of(FLOATS, how=when(_attends, ("module", "cross", "latent", "linear")), causal=(False, True), later=3)
def attention_other(c: Any, x: Tensor, *, how: str, causal: bool) -> Tensor:
    batch, rows, columns = x.shape
    if how == "module":
        if x.is_meta:
            return x
        layer = c.module(lambda: nn.MultiheadAttention(columns, 2, batch_first=True, dtype=x.dtype).eval())
        mask = _triu_infinite(x, rows, rows) if causal else None
        return layer(x, x, x, need_weights=False, attn_mask=mask)[0]
    if how == "cross":
        memory = c.new((1, 5, columns), x).expand(batch, 5, columns)
        return F.scaled_dot_product_attention(x[:, None], memory[:, None], memory[:, None])[:, 0]
    if how == "latent":
        small = _projected(c, x, 4, "")
        key, value = _projected(c, small, columns, ""), _projected(c, small, columns, "")
        return F.scaled_dot_product_attention(x[:, None], key[:, None], value[:, None], is_causal=causal)[
            :, 0
        ]
    key = F.elu(x) + 1
    if causal:
        sums = torch.einsum("bsd,bse->bsde", key[..., :4], x[..., :4]).cumsum(1)
        return torch.einsum("bsd,bsde->bse", key[..., :4], sums) / rows
    return key @ (key.transpose(1, 2) @ x) / rows


# --- caches: rows kept from call to call, and read


_ROWS: Final = (16, 40, 40, 2047, 2048, 2049, 4096)
_WRITES: Final = ("index_copy", "index_put", "assigned", "scattered", "narrowed", "item", "masked")


def _fits(view: View, rows: int) -> bool:
    return view.longest[1] <= min(rows, 64)


def _rows(view: View) -> Sequence[int]:
    wanted = [
        rows for rows in _ROWS if _attends(view) and _fits(view, rows) and view.shape[0] == view.longest[0]
    ]
    return [] if 0 in view.dynamic else wanted


def _start(view: View, drawn: Mapping[str, Any]) -> Sequence[Given]:
    """The position of the first row; from it on there is place for all."""
    return [{"shape": [1], "dtype": "int64", "rows": drawn["rows"] - view.longest[1] + 1}]


def _begin(start: Tensor, x: Tensor, rows: int) -> int:
    """The first position as a number that torch knows the bounds of."""
    at = start[0].item()
    torch._check(at >= 0)  # noqa: SLF001 - how exported programs say it
    torch._check(at + x.shape[1] <= rows)  # noqa: SLF001
    return at


def _written(state: Tensor, x: Tensor, start: Tensor, dim: int, how: str) -> None:
    """Write the rows `x` into `state` along `dim`, 1 or 2, from `start` on."""
    count, rows = x.shape[dim], state.shape[dim]
    at = torch.arange(count, device=x.device) + start
    ahead = (slice(None),) * dim
    if how == "index_copy":
        state.index_copy_(dim, at, x)
    elif how == "index_put":
        state[(*ahead, at)] = x
    elif how == "scattered":
        shape = [1] * dim + [count] + [1] * (x.dim() - dim - 1)
        state.scatter_(dim, at.reshape(shape).expand(x.shape), x)
    elif how == "ring":
        state[(*ahead, at % rows)] = x
    elif how == "shifted":
        state.copy_(torch.cat([state, x], dim)[(*ahead, slice(-rows, None))])
    elif how == "masked":
        chosen = (torch.arange(rows, device=x.device)[:, None] == at).to(x.dtype)
        placed = torch.einsum("rs,bshd->brhd" if dim == 1 else "rs,bhsd->bhrd", chosen, x)
        shape = [1] * dim + [rows] + [1] * (x.dim() - dim - 1)
        state.copy_(torch.where(chosen.sum(-1).reshape(shape) > 0, placed, state))
    else:
        first = start[0].item()
        torch._check(first >= 0)  # noqa: SLF001
        torch._check(first + count <= rows)  # noqa: SLF001
        if how == "narrowed":
            state.narrow(dim, first, count).copy_(x)
        else:
            state[(*ahead, slice(first, first + count))] = x


_READS: Final = ("all", "compared", "infinite", "least", "table", "window", "gqa")


def _visible(x: Tensor, at: Tensor, rows: int, how: str) -> Tensor | None:
    """Which of the cache's rows are read by those at `at`, [1, 1, positions, rows]."""
    column = torch.arange(rows, device=x.device)
    later = (column > at[:, None])[None, None]
    if how in {"compared", "gqa"}:
        return ~later
    if how == "infinite":
        return torch.zeros(later.shape, dtype=x.dtype, device=x.device).masked_fill(later, -torch.inf)
    if how == "least":
        return torch.where(later, _lowest(x), 0.0).to(x.dtype)
    if how == "table":
        return torch.ones(rows, rows, dtype=torch.bool, device=x.device).tril()[at][None, None]
    if how == "window":
        return ~later & (column > at[:, None] - 4)
    return None


@kind_of(
    FLOATS,
    rows=_rows,
    write=(*_WRITES, "ring", "shifted"),
    read=_READS,
    heads=(2, 4),
    shared=(1, 2),
    rows_first=(False, True),
    how=("sdpa", "sdpa", "eager", "float"),
    turn=("", "half", "interleaved"),
    further=_start,
    later=3,
)
def attention_cached(
    c: Any,
    x: Tensor,
    start: Tensor,
    *,
    rows: int,
    write: str,
    read: str,
    heads: int,
    shared: int,
    rows_first: bool,
    how: str,
    turn: str,
) -> Tensor:
    batch, count, columns = x.shape
    width, kept = columns // heads, heads // shared
    if x.is_meta:
        return torch.empty_like(x)
    at = torch.arange(count, device=x.device) + start
    parts = [_projected(c, x, out, "int4") for out in (columns, kept * width, kept * width)]
    query, key, value = (part.view(batch, count, -1, width).transpose(1, 2) for part in parts)
    if turn:
        angles = _angles(query, at)
        query, key = _TURNS[turn](query, angles), _TURNS[turn](key, angles)
    states = []
    for new in (key, value):
        shape = (batch, rows, kept, width) if rows_first else (batch, kept, rows, width)
        state = c.state(shape, x)
        _written(state, new.transpose(1, 2) if rows_first else new, start, 1 if rows_first else 2, write)
        states.append(state.transpose(1, 2) if rows_first else state)
    mask = _visible(query, at, rows, read)
    if read == "gqa":
        made = F.scaled_dot_product_attention(query, *states, mask, enable_gqa=True)
    else:
        keys, values = (_repeated(state, shared, "interleaved") for state in states)
        if how == "sdpa":
            made = F.scaled_dot_product_attention(query, keys, values, mask)
        else:
            made = _weighed(c, _scored(query, keys, mask, 0.0), how) @ values
    return made.transpose(1, 2).reshape(batch, count, columns)


@kind_of(
    (torch.float32,),
    rows=_rows,
    heads=(1, 2),
    shared=(1, 2),
    how=("causal", "mask", "all", "indexed"),
    further=_start,
    later=3,
)
def attention_of_executorch(
    c: Any, x: Tensor, start: Tensor, *, rows: int, heads: int, shared: int, how: str
) -> Tensor:
    batch, count, columns = x.shape
    if batch != 1:
        raise ValueError("ExecuTorch's operators take one sequence")
    if x.is_meta:
        return torch.empty_like(x)
    from vkfuse.program.operators import register_operators  # noqa: PLC0415 - imports ExecuTorch

    register_operators()
    width, ops, at = columns // (heads * shared), torch.ops.llama, _begin(start, x, rows)
    states = []
    for _ in range(2):
        new = _projected(c, x, heads * width, "").view(batch, count, heads, width)
        state = c.state((batch, rows, heads, width), x)
        if how == "indexed":
            ops.update_cache_with_indices(new, state, at, (torch.arange(count) + start)[None])
        else:
            ops.update_cache(new, state, at)
        states.append(state)
    query = x.view(batch, count, heads * shared, width)
    mask = None
    if how == "mask":
        mask = _visible(x, torch.arange(count) + start, rows, "infinite")[0, 0]
    return ops.custom_sdpa(query, *states, at, mask, 0.0, how in {"causal", "indexed"}).reshape(x.shape)


# --- other states


_STATES: Final = (
    "counted", "averaged", "exchanged", "last_rows", "recurrent", "returned", "flagged", "doubled", "maximum",
)  # fmt: skip


@kind_of(
    FLOATS,
    how=when(lambda v: 2 <= v.rank <= 4 and not v.dynamic and math.prod(v.shape) < 5000, _STATES),
    jumps=("flagged",),
    later=3,
)
def state_any(c: Any, x: Tensor, *, how: str) -> Tensor:
    if how == "counted":
        count = c.state((1,), torch.empty(0, dtype=torch.int64, device=x.device), zeros=True)
        count.add_(1)
        return x * count
    if how == "flagged":
        seen = c.state((1,), torch.empty(0, dtype=torch.bool, device=x.device), zeros=True)
        was = torch.where(seen, x, -x)
        seen.logical_or_(x.reshape(-1)[:1] > 0)
        return was
    state = c.state(x.shape, x)
    if how == "averaged":
        state.mul_(0.9).add_(x, alpha=0.1)
    elif how == "exchanged":
        other = c.state(x.shape, x)
        kept = state.clone()
        state.copy_(other * 0.5)
        other.copy_(kept + x)
    elif how == "last_rows":
        state.copy_(torch.cat([state[..., 1:, :], x[..., -1:, :]], -2))
    elif how == "recurrent":
        state.copy_(torch.tanh(state * 0.5 + x))
    elif how == "returned":
        was = state.clone()
        state.copy_(x)
        return was + x
    elif how == "doubled":
        state += x
        state *= 0.5
    else:
        state.copy_(torch.maximum(state, x))
    return state + 0


@kind_of(
    FLOATS, kernel=when(lambda v: v.rank == 3 and not v.dynamic and v.shape[1] <= 64, (2, 3, 4)), later=3
)
def convolution_with_state(c: Any, x: Tensor, *, kernel: int) -> Tensor:
    """The causal depthwise convolution of Mamba's step, of channels in front."""
    batch, many, _ = x.shape
    state = c.state((batch, many, kernel - 1), x)
    whole = torch.cat([state, x], -1)
    state.copy_(whole[..., -(kernel - 1) :])
    return F.silu(F.conv1d(whole, c.new((many, 1, kernel), x, 0.5), c.new((many,), x), groups=many))


# --- scans


def _scans(view: View) -> bool:
    return view.rank == 3 and {1, 2} <= {*view.static} and view.shape[1] <= 12 and view.shape[2] <= 128


@kind_of(FLOATS, how=when(_scans, ("looped", "segments", "decayed", "gated", "delta")), later=3)
def scan(c: Any, x: Tensor, *, how: str) -> Tensor:
    batch, rows, columns = x.shape
    decay = -F.softplus(F.linear(x, c.new((columns, columns), x, 0.1)))
    if how == "segments":
        sums = decay.cumsum(1)
        gaps = sums[:, :, None] - sums[:, None]
        low = torch.ones(rows, rows, dtype=torch.bool, device=x.device).tril()[None, :, :, None]
        return (torch.exp(gaps.masked_fill(~low, -torch.inf)) * x[:, None]).sum(2)
    if how == "decayed":
        return torch.exp(decay.cumsum(1)) * x
    if how == "gated":
        forget = torch.sigmoid(decay)
        return torch.cumsum(x * (1 - forget), 1) / (1 + torch.arange(rows, device=x.device)[:, None]).to(
            x.dtype
        )
    state = torch.zeros(batch, columns, dtype=x.dtype, device=x.device)
    made = []
    for at in range(rows):
        state = state * torch.exp(decay[:, at]) + x[:, at] * (
            1 if how == "looped" else torch.tanh(x[:, at] - state)
        )
        made.append(state)
    return torch.stack(made, 1)


# --- experts


_EXPERTS: Final = 4
_CHOICES: Final = (
    "topk",
    "one_hot",
    "gathered",
    "top_one",
    "threshold",
    "sigmoid",
    "biased",
    "grouped",
    "sorted",
)


def _chosen(c: Any, scores: Tensor, how: str) -> Tensor:
    """Shares [tokens, experts] of the experts."""
    shares = torch.sigmoid(scores) if how in {"sigmoid", "biased"} else torch.softmax(scores, -1)
    if how == "top_one":
        return F.one_hot(shares.argmax(-1), _EXPERTS).to(scores.dtype) * shares.amax(-1, keepdim=True)
    if how == "threshold":
        kept = shares.topk(2, -1).values[:, -1:]
        return torch.where(shares >= kept, shares, 0.0)
    if how == "sorted":
        order = shares.argsort(-1, descending=True, stable=True)[:, :2]
        return torch.zeros_like(shares).scatter(1, order, shares.gather(1, order))
    wanted = shares + c.new((_EXPERTS,), scores, 0.1) if how == "biased" else shares
    if how == "grouped":
        groups = shares.view(-1, 2, _EXPERTS // 2).amax(-1)
        best = torch.zeros_like(groups).scatter_(1, groups.topk(1, -1).indices, 1.0)
        wanted = shares * best.repeat_interleave(_EXPERTS // 2, 1)
    _, which = torch.topk(wanted, 2, -1)
    weights = shares.gather(1, which)
    weights = weights / weights.sum(-1, keepdim=True)
    if how == "one_hot":
        return (F.one_hot(which, _EXPERTS).to(weights.dtype) * weights[..., None]).sum(1)
    return torch.zeros_like(shares).scatter(1, which, weights)


@kind_of(
    FLOATS,
    how=when(lambda v: v.rank == 2 and last_static(v) and v.shape[-1] % 32 == 0, _CHOICES),
    bits=(0, 4, 8),
    gate=("silu", "gelu", "clamped"),
    jumps=True,
    later=3,
)
def experts_any(c: Any, x: Tensor, *, how: str, bits: int, gate: str) -> Tensor:
    shares = _chosen(c, F.linear(x, c.new((_EXPERTS, x.shape[-1]), x)), how)
    made = torch.zeros_like(x)
    for expert in range(_EXPERTS):
        up, beside = (_table(c, (32, x.shape[-1]), x, bits) for _ in range(2))
        inner, linear = F.linear(x, up), F.linear(x, beside)
        if gate == "clamped":
            inner, linear = inner.clamp(max=7.0), linear.clamp(-7.0, 7.0) + 1
        act = inner * torch.sigmoid(1.702 * inner) if gate == "clamped" else getattr(F, gate)(inner)
        made = made + F.linear(act * linear, _table(c, (x.shape[-1], 32), x, bits)) * shares[:, expert, None]
    return made


def _table(c: Any, shape: tuple[int, int], x: Tensor, bits: int) -> Tensor:
    if not bits:
        return c.new(shape, x, 1 / math.sqrt(shape[1]))
    return c.dequantized(shape, x, bits, (1, 32), points=False)


# --- tables with several readers, and several tables


_TIES: Final = ("linear", "transposed", "einsum", "rows", "scaled", "converted", "module", "module_before")


@kind_of(
    (),
    how=_TIES,
    rows=(8, 100, 127, 1003),
    columns=(32, 64, 96),
    bits=(4, 4, 4, 8),
    group=(0, 32),
    points=(False, False, True),
    later=3,
)
def tied(
    c: Any,
    ids: Tensor,
    *,
    how: str,
    rows: int,
    columns: int,
    bits: int,
    group: int,
    points: bool,
    half: bool = False,
) -> Tensor:
    dtype = torch.float16 if half else torch.float32
    like = torch.empty(0, dtype=dtype, device=ids.device)
    if how.startswith("module"):
        if ids.is_meta:
            return torch.empty((*ids.shape, rows), dtype=dtype, device="meta")
        config = IntxWeightOnlyConfig(
            weight_dtype=getattr(torch, f"int{bits}"), granularity=PerGroup(group) if group else PerAxis(0)
        )
        model = c.module(lambda: _Tied(rows, columns, dtype), config)
        if how == "module":
            model.head.weight = model.table.weight
        return model(ids)
    weight = c.dequantized((rows, columns), like, bits, (1, group or columns), points=points)
    h = F.embedding(ids, weight)
    h = F.rms_norm(h, (columns,), None, 1e-5)
    if how == "transposed":
        return h @ weight.t()
    if how == "einsum":
        return torch.einsum("...d,vd->...v", h, weight)
    if how == "rows":
        return F.linear(h, weight[: rows // 2])
    if how == "scaled":
        return F.linear(h * columns**-0.5, weight) * 2.0
    if how == "converted":
        return F.linear(h.float(), weight.float())
    return F.linear(h, weight)


class _Tied(nn.Module):
    """A table and a head of its shape."""

    def __init__(self, rows: int, columns: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, columns, dtype=dtype)
        self.head = nn.Linear(columns, rows, bias=False, dtype=dtype)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        h = self.table(ids)
        return self.head(h / (h.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt())


_LOOKUPS: Final = (
    "positions",
    "positions_sliced",
    "types",
    "halves",
    "shifted",
    "side_by_side",
    "bags",
    "folded",
    "two_levels",
)


@kind_of((), how=_LOOKUPS, rows=(50, 300), columns=(32, 64), bits=(4, 4, 8, 0), later=3)
def lookups(
    c: Any, ids: Tensor, *, how: str, rows: int, columns: int, bits: int, half: bool = False
) -> Tensor:
    like = torch.empty(0, dtype=torch.float16 if half else torch.float32, device=ids.device)

    def table(many: int) -> Tensor:
        return _table(c, (many, columns), like, bits)

    words = F.embedding(ids, table(rows))
    length = ids.shape[-1]
    if how == "positions":
        return words + F.embedding(torch.arange(length, device=ids.device), table(512))
    if how == "positions_sliced":
        return words * 3.0 + table(512)[:length]
    if how == "types":
        return words + F.embedding(torch.zeros_like(ids), table(2)) + F.embedding(ids % 7, table(7))
    if how == "halves":
        quotient = torch.div(ids, 10, rounding_mode="floor")
        return F.embedding(quotient, table(rows)) * F.embedding(ids % 10, table(10))
    if how == "shifted":
        return words + F.embedding(torch.clamp(ids - 1, min=0), table(rows))
    if how == "side_by_side":
        return torch.cat([words, F.embedding((ids * 3) % rows, table(rows))], -1)
    if how == "bags":
        return words.mean(-2) if ids.dim() > 1 else words.sum(0)
    if how == "folded":
        return words * (ids != 0).unsqueeze(-1)
    return F.embedding(F.embedding(ids, c.indices((rows, 1), 20, ids)).squeeze(-1), table(20))
