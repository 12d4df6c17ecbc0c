"""Layers as people write them: norms, quantized linears and convolutions, pools, sorts, masked softmaxes, other types.

The numbers of these kinds, and of those in kinds_models.py, are from 3,000,000 on; kinds.py says what a kind is.
"""

# ruff: noqa: D103, PLR0911, PLR0913 - a step computes what its one line says; a return a way to write it, a parameter a choice

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from kinds import FLOATS, Given, View, channels, dims_of, kind_of, last_static, when
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own way to write it
from torchao.quantization import (
    Int8DynamicActivationInt8WeightConfig,
    Int8DynamicActivationIntxWeightConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    MappingType,
)
from torchao.quantization.granularity import PerAxis, PerGroup

# --- norms


def _mean_square(x: Tensor) -> Tensor:
    return x.pow(2).mean(-1, keepdim=True)


def _in_float(x: Tensor) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(_mean_square(wide) + 1e-6)).type_as(x)


def _centred(x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt((x - mean).pow(2).mean(-1, keepdim=True) + 1e-5)


_RMS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "rsqrt": lambda x: x * torch.rsqrt(_mean_square(x) + 1e-6),
    "multiplied": lambda x: x * torch.rsqrt((x * x).mean(dim=-1, keepdim=True) + 1e-6),
    "divided": lambda x: x / torch.sqrt(_mean_square(x) + 1e-6),
    "outside": lambda x: x / (_mean_square(x).sqrt() + 1e-5),
    "in_float": _in_float,
    "norm": lambda x: x / (x.norm(dim=-1, keepdim=True) / math.sqrt(x.shape[-1]) + 1e-6),
    "normalized": lambda x: F.normalize(x, dim=-1) * math.sqrt(x.shape[-1]),
    "module": lambda x: F.rms_norm(x, x.shape[-1:], None, 1e-6),
    "module_no_eps": lambda x: F.rms_norm(x, x.shape[-1:]),
    "clamped": lambda x: x * _mean_square(x).clamp(min=1e-4).rsqrt(),
    "summed": lambda x: x * torch.rsqrt(x.square().sum(-1, keepdim=True) / x.shape[-1] + 1e-6),
    "centred": _centred,
    "variance": lambda x: (
        (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    ),
    "deviation": lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5),
    "module_layer": lambda x: F.layer_norm(x, x.shape[-1:]),
    "lengths": lambda x: F.normalize(x, dim=-1, eps=1e-6),
    "first": lambda x: F.normalize(x, p=1.0, dim=-1),
}
_WEIGHTS: Final = ("", "after", "one_more", "bias", "scaled", "heads", "scalar", "float_weight")


@kind_of(
    FLOATS, how=when(lambda v: last_static(v) and v.shape[-1] > 1, tuple(_RMS)), weight=_WEIGHTS, later=3
)
def norm_any(c: Any, x: Tensor, *, how: str, weight: str) -> Tensor:
    made, size = _RMS[how](x), x.shape[-1]
    if weight == "after":
        return c.new((size,), x) * made
    if weight == "one_more":
        return made * (1.0 + c.new((size,), x))
    if weight == "bias":
        return made * c.new((size,), x) + c.new((size,), x)
    if weight == "scaled":
        return made * 0.25
    if weight == "heads":
        return made * c.new((x.shape[-2], size), x)
    if weight == "scalar":
        return made * c.new((1,), x)
    if weight == "float_weight":
        return (made.float() * c.new((size,), torch.empty(0, device=x.device))).to(x.dtype)
    return made


_CHANNEL_NORMS: Final = (
    "group",
    "group_plain",
    "instance",
    "instance_plain",
    "batch_plain",
    "channels",
    "over_all",
    "moved",
)


@kind_of(
    FLOATS,
    how=when(lambda v: channels(3)(v) or (channels(4)(v) and {2, 3} <= {*v.static}), _CHANNEL_NORMS),
    eps=(1e-5, 1e-3),
    later=3,
)
def channel_norm_any(c: Any, x: Tensor, *, how: str, eps: float) -> Tensor:
    many = x.shape[1]
    weight, bias = c.new((many,), x), c.new((many,), x)
    affine = (None, None) if how.endswith("plain") else (weight, bias)
    if how.startswith("group"):
        return F.group_norm(x, 2 if many % 2 == 0 else 1, *affine, eps)
    if how.startswith("instance"):
        return F.instance_norm(x, weight=affine[0], bias=affine[1], eps=eps)
    if how == "batch_plain":
        return F.batch_norm(x, bias, weight.abs() + 0.5, None, None, training=False, eps=eps)
    if how == "channels":
        mean = x.mean(1, keepdim=True)
        return (x - mean) * torch.rsqrt((x - mean).square().mean(1, keepdim=True) + eps)
    if how == "moved":
        return F.layer_norm(x.transpose(1, -1), (many,), weight, bias, eps).transpose(1, -1)
    dims = [*range(1, x.dim())]
    return (x - x.mean(dims, keepdim=True)) / (x.var(dims, keepdim=True, correction=0) + eps).sqrt()


# --- quantized linears and convolutions


def _weight_only(bits: int, group: int, *, points: bool = False) -> IntxWeightOnlyConfig:
    return IntxWeightOnlyConfig(
        weight_dtype=getattr(torch, f"int{bits}"),
        granularity=PerGroup(group) if group else PerAxis(0),
        mapping_type=MappingType.ASYMMETRIC if points else MappingType.SYMMETRIC,
    )


def _activations(bits: int, group: int, mapping: MappingType) -> Int8DynamicActivationIntxWeightConfig:
    return Int8DynamicActivationIntxWeightConfig(
        weight_dtype=getattr(torch, f"int{bits}"),
        weight_granularity=PerGroup(group) if group else PerAxis(0),
        act_mapping_type=mapping,
    )


_GROUPS: Final = (32, 64, 128, 0)
_RECIPES: Final[Mapping[str, Callable[[], Any]]] = {
    **{
        f"w{bits}g{group}": lambda bits=bits, group=group: _weight_only(bits, group)
        for bits in (2, 3, 4, 6, 8)
        for group in _GROUPS
    },
    **{
        f"w{bits}g{group}z": lambda bits=bits, group=group: _weight_only(bits, group, points=True)
        for bits in (4, 8)
        for group in _GROUPS
    },
    "w8": Int8WeightOnlyConfig,
}
_COARSE_RECIPES: Final[Mapping[str, Callable[[], Any]]] = {
    **{
        f"a8w{bits}g{group}": lambda bits=bits, group=group: _activations(bits, group, MappingType.ASYMMETRIC)
        for bits in (4, 8)
        for group in _GROUPS
    },
    "a8w4g32s": lambda: _activations(4, 32, MappingType.SYMMETRIC),
    "a8w8": Int8DynamicActivationInt8WeightConfig,
}
_OUT: Final = (1, 3, 4, 8, 32, 33, 64)


def _recipes(known: Mapping[str, Callable[[], Any]]) -> Callable[[View], Sequence[str]]:
    def fit(view: View) -> list[str]:
        if not last_static(view) or view.shape[-1] % 8:
            return []
        groups = {name: int(name.split("g")[1].rstrip("sz") or 0) if "g" in name else 0 for name in known}
        return [name for name, group in groups.items() if view.shape[-1] % (group or 8) == 0]

    return fit


@kind_of(FLOATS, recipe=_recipes(_RECIPES), out=_OUT, bias=(False, True), later=3)
def linear_recipe(c: Any, x: Tensor, *, recipe: str, out: int, bias: bool) -> Tensor:
    return c.layer(x, out, bias, _RECIPES[recipe]())


@kind_of(
    (torch.float32,),
    recipe=_recipes(_COARSE_RECIPES),
    out=_OUT,
    bias=(False, True),
    coarse=True,
    jumps=True,
    later=3,
)
def linear_recipe_coarse(c: Any, x: Tensor, *, recipe: str, out: int, bias: bool) -> Tensor:
    return c.layer(x, out, bias, _COARSE_RECIPES[recipe]())


_FUSED: Final = ("swiglu", "split", "residual", "transposed", "three", "relu", "lora", "stacked")


@kind_of(
    FLOATS,
    how=when(lambda v: v.rank > 1 and last_static(v) and v.shape[-1] in range(32, 513, 32), _FUSED),
    bits=(4, 4, 8, 0),
    points=(False, False, True),
    later=3,
)
def feed_forward(c: Any, x: Tensor, *, how: str, bits: int, points: bool) -> Tensor:
    def linear(y: Tensor, out: int) -> Tensor:
        shape = (out, y.shape[-1])
        scale = 1 / math.sqrt(shape[1])
        return F.linear(
            y, c.dequantized(shape, y, bits, (1, 32), points=points) if bits else c.new(shape, y, scale)
        )

    size = x.shape[-1]
    if how == "swiglu":
        return linear(F.silu(linear(x, 64)) * linear(x, 64), size)
    if how == "split":
        a, b = linear(x, 128).chunk(2, -1)
        return linear(F.gelu(a, approximate="tanh") * b, size)
    if how == "residual":
        return x + linear(F.relu(linear(x, 32)).square(), size)
    if how == "transposed":
        return x @ linear(c.new((size, size), x, 0.2), size).transpose(0, 1)
    if how == "three":
        return torch.cat([linear(x, out) for out in (4, 32, 8)], -1)
    if how == "relu":
        return linear(F.relu(linear(x, 32)), 3)
    if how == "lora":
        return linear(x, 32) + linear(linear(x, 8).repeat_interleave(4, -1), 32) * 2.0
    return torch.stack([linear(x, 32), linear(x, 32)], -2).sum(-2)


def _static_codes(x: Tensor, scale: float, zero: int) -> Tensor:
    """A value through 8 bits of a scale that was calibrated, as PT2E leaves it."""
    ops = torch.ops.quantized_decomposed
    codes = ops.quantize_per_tensor.default(x, scale, zero, -128, 127, torch.int8)
    return ops.dequantize_per_tensor.default(codes, scale, zero, -128, 127, torch.int8)


def _channel_weight(c: Any, shape: tuple[int, ...], x: Tensor) -> Tensor:
    """8-bit weights [outputs, ...] with a scale for each output."""
    like = torch.empty([0] * max(3, len(shape)), dtype=x.dtype, device=x.device)
    made = c.kernels((*shape[:2],), shape[2] if len(shape) > 2 else 1, like, points=False)
    return made if len(shape) > 2 else made.flatten(1)


@kind_of(
    (torch.float32,),
    out=when(lambda v: v.rank > 1 and last_static(v) and v.shape[-1] % 4 == 0, (4, 8, 33)),
    zero=(0, -5, 17),
    after=("", "coded", "relu"),
    bias=(False, True),
    coarse=True,
    jumps=True,
    later=3,
)
def linear_static(c: Any, x: Tensor, *, out: int, zero: int, after: str, bias: bool) -> Tensor:
    weight = _channel_weight(c, (out, x.shape[-1]), x)
    made = F.linear(_static_codes(x, 0.04, zero), weight, c.new((out,), x) if bias else None)
    made = F.relu(made) if after == "relu" else made
    return _static_codes(made, 0.05, 3) if after else made


@kind_of(
    (torch.float32,),
    out=when(lambda v: channels(3)(v) or channels(4)(v), (4, 8, 6)),
    kernel=(1, 3),
    zero=(0, -5),
    depthwise=(False, True),
    after=("", "coded", "relu"),
    coarse=True,
    jumps=True,
    later=3,
)
def conv_static(
    c: Any, x: Tensor, *, out: int, kernel: int, zero: int, depthwise: bool, after: str
) -> Tensor:
    many, sizes = x.shape[1], (kernel,) * (x.dim() - 2)
    weight = _channel_weight(c, (many if depthwise else out, 1 if depthwise else many, *sizes), x)
    convolve = F.conv1d if x.dim() == 3 else F.conv2d
    made = convolve(
        _static_codes(x, 0.04, zero),
        weight,
        c.new((weight.shape[0],), x),
        padding=kernel // 2,
        groups=many if depthwise else 1,
    )
    made = F.relu(made) if after == "relu" else made
    return _static_codes(made, 0.05, 3) if after else made


# --- convolutions and pools of odd sizes

_CONVOLUTIONS: Final = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
_TRANSPOSED: Final = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}


def _convolves(view: View) -> bool:
    return view.rank in _CONVOLUTIONS and 1 not in view.dynamic and view.shape[1] <= 64


@kind_of(
    FLOATS,
    out=when(_convolves, (1, 2, 4, 5, 8)),
    kernel=([1, 3, 2], [3, 1, 3], [7, 2, 1], [3, 3, 3], [4, 5, 1]),
    stride=([1, 1, 1], [2, 1, 1], [2, 2, 2], [3, 2, 1]),
    padding=("same", "valid", [1, 0, 0], [0, 1, 1], [2, 1, 0], [0, 0, 0]),
    dilation=([1, 1, 1], [1, 1, 1], [2, 1, 1], [1, 2, 1]),
    groups=(1, 1, 2, 0),
    bias=(False, True),
    later=3,
)
def conv_any(
    c: Any,
    x: Tensor,
    *,
    out: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: str | Sequence[int],
    dilation: Sequence[int],
    groups: int,
    bias: bool,
) -> Tensor:
    dims, many = x.dim() - 2, x.shape[1]
    groups = groups or many
    filters = out * groups if groups > 1 else out
    size = tuple(kernel[:dims])
    weight = c.new((filters, many // groups, *size), x, 1 / math.sqrt(many / groups * math.prod(size)))
    pad = padding if isinstance(padding, str) else list(padding[:dims])
    step = [1] * dims if padding == "same" else list(stride[:dims])
    given = c.new((filters,), x) if bias else None
    return _CONVOLUTIONS[x.dim()](x, weight, given, step, pad, list(dilation[:dims]), groups)


@kind_of(
    FLOATS,
    out=when(_convolves, (1, 2, 4)),
    kernel=([2, 2, 2], [3, 3, 3], [4, 2, 1], [1, 3, 2]),
    stride=([1, 1, 1], [2, 2, 2], [2, 1, 1], [3, 2, 1]),
    padding=(0, 1),
    more=(0, 0, 1),
    groups=(1, 1, 2, 0),
    bias=(False, True),
    later=3,
)
def conv_transposed_any(
    c: Any,
    x: Tensor,
    *,
    out: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: int,
    more: int,
    groups: int,
    bias: bool,
) -> Tensor:
    dims, many = x.dim() - 2, x.shape[1]
    groups = groups or many
    weight = c.new((many, out, *kernel[:dims]), x, 0.4)
    given = c.new((out * groups,), x) if bias else None
    return _TRANSPOSED[x.dim()](x, weight, given, list(stride[:dims]), padding, more, groups)


def _pooled(name: str, rank: int) -> Callable[..., Tensor]:
    return getattr(F, f"{name}{rank - 2}d")


_POOLS: Final = (
    "avg_unpadded",
    "avg_divided",
    "max_dilated",
    "max_odd",
    "avg_odd",
    "adaptive_avg",
    "adaptive_max",
    "lp",
)


@kind_of(FLOATS, how=when(lambda v: v.rank in {3, 4, 5}, _POOLS), size=(1, 2, 3), stride=(1, 2, 3), later=3)
def pool_any(_c: Any, x: Tensor, *, how: str, size: int, stride: int) -> Tensor:
    rank = x.dim()
    odd = ([size + 1, size, size + 1][: rank - 2], [stride] * (rank - 2))
    if how == "avg_unpadded":
        return _pooled("avg_pool", rank)(x, size + 1, stride, 1, count_include_pad=False)
    if how == "avg_divided":
        more = {} if rank == 3 else {"divisor_override": 3}
        return _pooled("avg_pool", rank)(x, size + 1, stride, ceil_mode=True, **more)
    if how == "max_dilated":
        return _pooled("max_pool", rank)(x, size + 1, stride, 1, 2)
    if how == "lp":
        return F.lp_pool1d(x, 2, size, stride) if rank == 3 else F.lp_pool2d(x, 2, size, stride)
    if how.startswith("adaptive"):
        return _pooled(f"{how}_pool", rank)(x, [size, size + 1, size][: rank - 2])
    return _pooled(how.replace("odd", "pool"), rank)(x, *odd)


_RESIZES: Final = (
    "nearest",
    "nearest-exact",
    "linear",
    "bicubic",
    "area",
    "unshuffle",
    "unfold",
    "sizes",
    "padded",
)


@kind_of(
    FLOATS, how=when(lambda v: channels(4)(v) or channels(3)(v), _RESIZES), factor=(2, 0.5, 1.5), later=3
)
def resize_any(_c: Any, x: Tensor, *, how: str, factor: float) -> Tensor:
    images = x.dim() == 4
    if how in {"nearest", "nearest-exact", "area"}:
        return F.interpolate(x, scale_factor=factor, mode=how)
    if how == "linear":
        return F.interpolate(
            x, scale_factor=factor, mode="bilinear" if images else "linear", align_corners=False
        )
    if how == "bicubic":
        return F.interpolate(x, scale_factor=factor, mode="bicubic")
    if how == "sizes":
        return F.interpolate(x, size=(5, 3) if images else 5, mode="nearest")
    if how == "unshuffle":
        return F.pixel_unshuffle(x, 2)
    if how == "unfold":
        return F.unfold(x, (2, 2), stride=2)
    return F.pad(x, (1, 2, 0, 1) if images else (1, 2), mode="reflect")


# --- sums along, sorts with ties, extremes


_ALONG: Final = (
    "cumprod", "cummax", "logcumsumexp", "diff", "logsumexp", "cumsum_whole", "reversed", "softmin", "std", "prod",
    "norm", "any", "all", "count", "median", "roll", "var_mean", "exclusive", "cumsum_of_bools",
)  # fmt: skip


_COUNTED: Final = ("cumsum_whole", "any", "all", "count", "median", "cumsum_of_bools")


@kind_of(FLOATS, dim=dims_of, how=_ALONG, jumps=_COUNTED, later=3)
def along(_c: Any, x: Tensor, *, dim: int, how: str) -> Tensor:
    simple: dict[str, Callable[[], Tensor]] = {
        "cumprod": lambda: torch.cumprod(torch.tanh(x), dim),
        "cummax": lambda: torch.cummax(x, dim).values,
        "logcumsumexp": lambda: torch.logcumsumexp(x, dim),
        "diff": lambda: torch.diff(x, dim=dim),
        "logsumexp": lambda: torch.logsumexp(x, dim),
        "cumsum_whole": lambda: torch.cumsum((x > 0).to(torch.int64), dim),
        "reversed": lambda: x.flip(dim).cumsum(dim).flip(dim) / x.shape[dim],
        "softmin": lambda: F.softmin(x, dim),
        "std": lambda: x.std(dim, keepdim=True),
        "prod": lambda: torch.prod(torch.tanh(x), dim),
        "norm": lambda: x.norm(dim=dim),
        "any": lambda: (x > 1).any(dim),
        "all": lambda: (x > -1).all(dim, keepdim=True),
        "count": lambda: (x > 0).sum(dim),
        "median": lambda: x.median(dim).values,
        "roll": lambda: x.roll(-2, dim),
        "var_mean": lambda: torch.add(*torch.var_mean(x, dim, correction=0)),
        "exclusive": lambda: (x.cumsum(dim) - x) / x.shape[dim],
        "cumsum_of_bools": lambda: (x > 0).cumsum(dim) % 3,
    }
    return simple[how]()


_ORDERS: Final = (
    "sort", "sort_down", "argsort", "argsort_down", "topk", "topk_least", "topk_places", "max_places", "min_places",
    "argmax", "argmin", "argmax_all", "kth", "ranks", "unique_largest", "top_mask",
)  # fmt: skip


@kind_of(FLOATS, dim=dims_of, how=_ORDERS, ties=(False, True), jumps=True, later=3)
def ordered(_c: Any, x: Tensor, *, dim: int, how: str, ties: bool) -> Tensor:
    x = torch.round(x * 2) / 2 if ties and not how.startswith("topk_places") else x
    simple: dict[str, Callable[[], Tensor]] = {
        "sort": lambda: torch.sort(x, dim=dim, stable=True).values,
        "sort_down": lambda: torch.sort(x, dim=dim, descending=True).values,
        "argsort": lambda: torch.argsort(x, dim=dim, stable=True),
        "argsort_down": lambda: torch.argsort(x, dim=dim, descending=True, stable=True),
        "topk": lambda: torch.topk(x, min(2, x.shape[dim]), dim).values,
        "topk_least": lambda: torch.topk(x, 1, dim, largest=False).values,
        "topk_places": lambda: torch.topk(x, 1, dim).indices,
        "max_places": lambda: x.max(dim).indices,
        "min_places": lambda: x.min(dim, keepdim=True).indices,
        "argmax": lambda: x.argmax(dim, keepdim=True),
        "argmin": lambda: x.argmin(dim),
        "argmax_all": lambda: x.argmax() + 0,
        "kth": lambda: x.kthvalue(1, dim).values,
        "ranks": lambda: x.argsort(dim, stable=True).argsort(dim, stable=True),
        "unique_largest": lambda: F.one_hot(x.argmax(dim), x.shape[dim]),
        "top_mask": lambda: torch.where(x >= x.amax(dim, keepdim=True), x, torch.zeros_like(x)),
    }
    return simple[how]()


_SOFTMAXES: Final = (
    "log",
    "softmax",
    "float",
    "lowest",
    "where",
    "logsumexp",
    "log_float",
    "temperature",
    "entropy",
    "loss",
)


def _given_mask(view: View, drawn: Mapping[str, Any]) -> Sequence[Given]:
    """A mask as an input: of the whole value, or of its last dimension."""
    del drawn
    return [{"shape": list(view.named), "dtype": "bool", "fill": "kept"}]


@kind_of(
    FLOATS,
    how=when(lambda v: v.rank > 1 and None not in v.named, _SOFTMAXES),
    further=_given_mask,
    later=3,
)
def softmax_masked(_c: Any, x: Tensor, kept: Tensor, *, how: str) -> Tensor:
    scores = x.masked_fill(~kept, -torch.inf)
    if how == "lowest":
        return torch.softmax(x.masked_fill(~kept, torch.finfo(x.dtype).min), -1)
    if how == "where":
        return torch.where(kept, torch.softmax(scores, -1), 0.25)
    if how == "log":
        return torch.log_softmax(scores, -1)
    if how == "log_float":
        return F.log_softmax(scores, -1, dtype=torch.float32)
    if how == "float":
        return torch.softmax(scores, -1, dtype=torch.float32).to(x.dtype)
    if how == "logsumexp":
        return scores.logsumexp(-1)
    if how == "temperature":
        return torch.softmax(scores / 0.7, dim=-1)
    if how == "entropy":
        shares = torch.softmax(scores, -1)
        return -(shares * torch.log(shares + 1e-9)).sum(-1)
    return -torch.log_softmax(scores, -1)[..., 0]


# --- other types: bytes, booleans, whole numbers, numbers and None as inputs


_BYTES: Final = ("scaled", "normalized", "divided", "channels", "compared", "half", "whole")


@kind_of(
    (torch.uint8, torch.int8),
    how=lambda v: _BYTES if last_static(v) else [how for how in _BYTES if how != "channels"],
    later=3,
)
def from_bytes(c: Any, x: Tensor, *, how: str) -> Tensor:
    if how == "scaled":
        return x.float() / 255.0
    if how == "normalized":
        return (x.to(torch.float32) * (1 / 127.5) - 1.0) * 0.5
    if how == "divided":
        return x / 255
    if how == "channels":
        return (x.float() - 127.0) / c.new(x.shape[-1:], x.float()).abs().add(1)
    if how == "compared":
        return torch.where(x > 100, 1.0, 0.0)
    if how == "half":
        return x.half() * 0.01
    return x.to(torch.int32) + 1


_WHOLE: Final = (
    "remainder", "halved", "shifted", "flags", "hashed", "one_hot", "clamped", "absolute", "compared", "floats", "products",
)  # fmt: skip


@kind_of((torch.int32, torch.int64), how=when(lambda v: v.rank > 0, _WHOLE), later=3)
def whole_any(_c: Any, x: Tensor, *, how: str) -> Tensor:
    simple: dict[str, Callable[[], Tensor]] = {
        "remainder": lambda: x % 3,
        "halved": lambda: x // 2,
        "shifted": lambda: (x << 2) + (x >> 1),
        "flags": lambda: ((x & 3) | 4) ^ 1,
        "hashed": lambda: (x * 1000003 + 12345) % 97,
        "one_hot": lambda: F.one_hot(x.abs() % 5, 5),
        "clamped": lambda: x.clamp(0, 3) - 1,
        "absolute": lambda: x.abs() + x.sign(),
        "compared": lambda: (x == 2) | (x < 0),
        "floats": lambda: x / 4,
        "products": lambda: (x * x + x).to(torch.float32) * 0.5,
    }
    return simple[how]()


_LOGIC: Final = ("counted", "inverted", "floats", "chosen", "mixed", "any", "cumulative")


@kind_of((torch.bool,), how=when(lambda v: v.rank > 0, _LOGIC), later=3)
def logic_any(_c: Any, x: Tensor, *, how: str) -> Tensor:
    simple: dict[str, Callable[[], Tensor]] = {
        "counted": lambda: x.sum(-1),
        "inverted": lambda: (1.0 - x.float()) * -10000.0,
        "floats": lambda: x.to(torch.float32) + 0.5,
        "chosen": lambda: torch.where(x, 2.0, -1.0),
        "mixed": lambda: ~x | (x & x.flip(-1)),
        "any": lambda: x.any(-1, keepdim=True) ^ x,
        "cumulative": lambda: x.long().cumsum(-1) * x,
    }
    return simple[how]()


def _number(_view: View, drawn: Mapping[str, Any]) -> Sequence[Given]:
    return [{"value": drawn["value"]}]


@kind_of(FLOATS, value=(None, 2, 0.5, True, -1), further=_number, later=3)
def with_number(_c: Any, x: Tensor, number: float | None, *, value: float | None) -> Tensor:
    del value
    return x * 2 if number is None else x * number + 1


# --- choices by a second value, and by indices that are inputs


def _indices(view: View, drawn: Mapping[str, Any]) -> Sequence[Given]:
    dim = drawn["at"][0]
    size = view.shape[dim]
    whole = [drawn["at"][1] if at == dim else each for at, each in enumerate(view.named)]
    shape = whole if drawn["how"] in {"gather", "along", "scatter"} else [drawn["at"][1]]
    return [{"shape": shape, "dtype": "int64", "rows": size}]


@kind_of(
    FLOATS,
    at=lambda v: [[dim, many] for dim in v.static for many in (1, 3) if None not in v.named],
    how=("index_select", "index", "gather", "along", "scatter", "negative", "masked", "index_add", "filled"),
    further=_indices,
    later=3,
)
def chosen_by_input(_c: Any, x: Tensor, which: Tensor, *, at: Sequence[int], how: str) -> Tensor:
    dim, _ = at
    ahead = (slice(None),) * dim
    if how == "index":
        return x[(*ahead, which)]
    if how == "negative":
        return x[(*ahead, which - x.shape[dim])]
    if how == "gather":
        return x.gather(dim, which)
    if how == "along":
        return torch.take_along_dim(x, which, dim)
    if how == "scatter":
        return torch.zeros_like(x).scatter(dim, which, 1.0) + x
    if how == "masked":
        shape = [1] * dim + [x.shape[dim]] + [1] * (x.dim() - dim - 1)
        return torch.where((torch.arange(x.shape[dim], device=x.device) == which[0]).reshape(shape), x, -x)
    if how == "index_add":
        return x.index_add(dim, which[:1], x.narrow(dim, 0, 1))
    if how == "filled":
        return x.index_fill(dim, which, 0.0)
    return x.index_select(dim, which)


_WRITTEN: Final = ("slices", "whole", "halves", "strided", "masked", "diagonal", "rolled", "row")


@kind_of(
    FLOATS,
    how=when(lambda v: last_static(v) and v.shape[-1] >= 4 and v.shape[-1] % 2 == 0, _WRITTEN),
    jumps=("masked",),
    later=3,
)
def assigned_any(_c: Any, x: Tensor, *, how: str) -> Tensor:
    half, out = x.shape[-1] // 2, torch.zeros_like(x) if how == "row" else x.clone()
    if how == "slices":
        out[..., :half] = x[..., half:] * 2
    elif how == "whole":
        out[:] = x * 3
    elif how == "halves":
        out = torch.empty_like(x)
        out[..., :half], out[..., half:] = -x[..., half:], x[..., :half]
    elif how == "strided":
        out[..., ::2] = x[..., 1::2]
    elif how == "masked":
        out[out < 0] = 0.5
    elif how == "diagonal":
        out[..., 1:-1] += x[..., 2:]
    elif how == "rolled":
        out[..., 1:] = x[..., :-1]
    else:
        out[..., 0] = x[..., -1]
    return out


_SHAPES: Final = (
    "meshgrid",
    "einsum_outer",
    "tril_of_ones",
    "repeat_to",
    "flip_two",
    "squeeze_pair",
    "windows",
    "movedim",
)


@kind_of(FLOATS, how=when(lambda v: v.rank in {2, 3} and max(v.longest) <= 512, _SHAPES), later=3)
def shaped_any(_c: Any, x: Tensor, *, how: str) -> Tensor:
    if how == "meshgrid":
        rows = torch.arange(x.shape[-2], device=x.device), torch.arange(x.shape[-1], device=x.device)
        a, b = torch.meshgrid(*rows, indexing="ij")
        return x + (a - b).abs().to(x.dtype) * 0.1
    if how == "einsum_outer":
        return torch.einsum("...i,...j->...ij", x, x).mean(-1)
    if how == "tril_of_ones":
        return torch.ones(x.shape[-2], x.shape[-2], dtype=x.dtype, device=x.device).tril() @ x
    if how == "repeat_to":
        return x.unsqueeze(1).repeat(1, 3, *[1] * (x.dim() - 1)).flatten(0, 1)
    if how == "flip_two":
        return x.flip(-1, -2)
    if how == "squeeze_pair":
        return x.unsqueeze(-1).transpose(-1, -2).squeeze(-2) * 2
    if how == "windows":
        return x.unfold(-1, 2, 2).amax(-1)
    return x.movedim(-1, 0) + 1
