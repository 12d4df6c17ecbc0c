"""The steps that swept programs are made of: what each computes, what it takes, and which arguments suit a value.

A step's function takes a source of constants and one value, or two, and arguments that JSON can hold. The choices beside it
give, for a value, the arguments to draw from; none at all means that the step does not suit the value.
"""

# ruff: noqa: D103 - a step computes what its one line says

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own way to write it

FLOATS: Final = (torch.float32, torch.float16)
INTS: Final = (torch.int32, torch.int64)
BOOLS: Final = (torch.bool,)
NUMBERS: Final = FLOATS + INTS
ALL: Final = NUMBERS + BOOLS


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A value as the generator sees it: sizes at the example's length, and which dimensions are dynamic.

    `longest` has the largest sizes; `named` the sizes as an input's spec says them, None where no length has that size.
    """

    shape: tuple[int, ...]
    dynamic: frozenset[int]
    dtype: torch.dtype
    longest: tuple[int, ...]
    named: tuple[int | str | None, ...]

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def static(self) -> list[int]:
        """Dimensions whose size is always the same."""
        return [dim for dim in range(self.rank) if dim not in self.dynamic]

    @property
    def is_float(self) -> bool:
        """Whether it holds floats."""
        return self.dtype.is_floating_point


Choices = Callable[[View], Sequence[Any]] | Sequence[Any]
Given = dict[str, Any]  # an input, as a spec has it
Further = Callable[[View, Mapping[str, Any]], Sequence[Given]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of step. `two`: takes a second value or, with the argument `constant`, a constant of that shape.

    Kinds that came `later`, the first time, the second or the third, have numbers of their own, so that those of the others
    stay. `further` are inputs that the step takes beside its values, for a value and the arguments drawn.
    """

    name: str
    apply: Callable[..., Tensor]
    takes: tuple[torch.dtype, ...]
    choices: Mapping[str, Choices]
    two: bool = False
    # A tiny change of its input may be a large one of its output: always, or in these of the ways to write it.
    jumps: bool | Sequence[str] = False
    coarse: bool = False  # 8-bit activations, which the runtime rounds by its own rule
    later: int = 0
    further: Further | None = None

    def may_jump(self, drawn: Mapping[str, Any]) -> bool:
        """Whether it jumps with the arguments drawn."""
        return self.jumps if isinstance(self.jumps, bool) else drawn.get("how") in self.jumps

    def draw(self, rng: random.Random, view: View) -> dict[str, Any] | None:
        """Arguments for a value, or None where the step does not suit it."""
        if view.dtype not in self.takes:
            return None
        drawn: dict[str, Any] = {}
        for name, choices in self.choices.items():
            options = choices(view) if callable(choices) else choices
            if not options:
                return None
            drawn[name] = rng.choice(options)
        return drawn


KINDS: Final[dict[str, Kind]] = {}


def add_kind(name: str, apply: Callable[..., Tensor], takes: tuple[torch.dtype, ...], **more: Any) -> None:
    flags = {flag: more.pop(flag) for flag in ("two", "jumps", "coarse", "later", "further") if flag in more}
    KINDS[name] = Kind(name=name, apply=apply, takes=takes, choices=more, **flags)


def kind_of(
    takes: tuple[torch.dtype, ...], **more: Any
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    def decorate(apply: Callable[..., Tensor]) -> Callable[..., Tensor]:
        add_kind(apply.__name__.strip("_"), apply, takes, **more)
        return apply

    return decorate


# --- what choices are made of


def dims_of(view: View) -> list[int]:
    return [*range(view.rank), *range(-view.rank, 0)]


def _static_dims(view: View) -> list[int]:
    return view.static


def last_static(view: View) -> bool:
    return view.rank > 0 and view.rank - 1 not in view.dynamic


def when(condition: Callable[[View], bool], options: Sequence[Any]) -> Callable[[View], Sequence[Any]]:
    return lambda view: options if condition(view) else ()


def of_rank(*ranks: int) -> Callable[[View], bool]:
    return lambda view: view.rank in ranks


def channels(rank: int) -> Callable[[View], bool]:
    return lambda view: view.rank == rank and 1 not in view.dynamic


def _broadcasts(view: View) -> list[list[int]]:
    """Shapes of constants that broadcast with a value."""
    fixed = [1 if dim in view.dynamic else size for dim, size in enumerate(view.shape)]
    tails = [fixed[at:] for at in range(view.rank + 1)]
    ones = [[1 if dim == at else size for dim, size in enumerate(fixed)] for at in range(view.rank)]
    return [*tails, *ones, [1]]


def _reductions(view: View) -> list[list[int] | None]:
    pairs = itertools.combinations(range(view.rank), 2)
    singles = [[dim] for dim in dims_of(view)]
    return [*singles, *(list(pair) for pair in pairs), [*range(view.rank)], None] if view.rank else []


# --- one value in, elementwise

_UNARY: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "abs": torch.abs,
    "cos": torch.cos,
    "exp": lambda x: torch.exp(-x.abs()),
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hardshrink": F.hardshrink,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh,
    "neg": torch.neg,
    "relu": torch.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "sin": torch.sin,
    "sqrt": lambda x: torch.sqrt(x.abs() + 0.5),
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 0.5),
    "tanh": torch.tanh,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "log10": lambda x: torch.log10(x.abs() + 0.5),
    "elu": F.elu,
    "softplus": F.softplus,
    "mish": F.mish,
    "erf": torch.erf,
    "log": lambda x: torch.log(x.abs() + 0.5),
    "reciprocal": lambda x: torch.reciprocal(x.abs() + 0.5),
    "clone": torch.clone,
}
for _name, _function in _UNARY.items():
    add_kind(_name, lambda _c, x, function=_function: function(x), FLOATS, jumps=_name == "hardshrink")
for _name, _function in {"round": torch.round, "floor": torch.floor, "sign": torch.sign}.items():
    add_kind(_name, lambda _c, x, function=_function: function(x), FLOATS, jumps=True)

_BOUNDS: Final = ((0.0, 1.0), (-0.5, 0.5), (0, 1), (None, 0.25), (-1, None), (0.0, None))


@kind_of(NUMBERS, bounds=lambda v: _BOUNDS if v.is_float else ((0, 1), (-2, 3), (None, 2)))
def clamp(_c: Any, x: Tensor, *, bounds: tuple[Any, Any]) -> Tensor:
    return torch.clamp(x, *bounds)


# --- with a number

_SCALARS: Final = (0, 1, 2, 0.0, 1.0, 2.0, -0.5)
_ARITHMETIC: Final = {"add": torch.add, "sub": torch.sub, "mul": torch.mul}
_COMPARISONS: Final = {
    "eq": torch.eq,
    "ne": torch.ne,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
}


def _scalars(view: View) -> Sequence[float]:
    return _SCALARS if view.is_float else (0, 1, 2, -3)


for _name, _function in (_ARITHMETIC | _COMPARISONS).items():
    add_kind(
        f"{_name}_number",
        lambda _c, x, number, function=_function: function(x, number),
        NUMBERS,
        number=_scalars,
        jumps=_name in _COMPARISONS,
    )


@kind_of(FLOATS, number=(2, 4.0, 0.5, 1))
def div_number(_c: Any, x: Tensor, *, number: float) -> Tensor:
    return x / number


@kind_of(NUMBERS, number=_scalars)
def rsub(_c: Any, x: Tensor, *, number: float) -> Tensor:
    return number - x


@kind_of(FLOATS, number=(2, 3, 0.5, 2.0, -1.0))
def pow_number(_c: Any, x: Tensor, *, number: float) -> Tensor:
    return torch.pow(x.abs() + 0.5, number)


# --- two values, or a value and a constant


def _two(
    name: str, function: Callable[[Tensor, Tensor], Tensor], takes: tuple[torch.dtype, ...], **more: Any
) -> None:
    def apply(c: Any, x: Tensor, y: Tensor | None = None, *, constant: Sequence[int] | None = None) -> Tensor:
        return function(x, c.new(constant, x) if y is None else y)

    add_kind(name, apply, takes, two=True, constant=_broadcasts, **more)


for _name, _function in _ARITHMETIC.items():
    _two(_name, _function, NUMBERS)
_two("minimum", torch.minimum, NUMBERS)
_two("maximum", torch.maximum, NUMBERS)
_two("div", lambda x, y: x / (y.abs() + 0.5), FLOATS)
_two("div_floor", lambda x, y: torch.div(x, y.abs() + 1, rounding_mode="floor"), NUMBERS, jumps=True)
_two("div_trunc", lambda x, y: torch.div(x, y.abs() + 1, rounding_mode="trunc"), NUMBERS, jumps=True)
_two("pow", lambda x, y: torch.pow(x.abs() + 0.5, y.clamp(-2, 2)), FLOATS)
for _name, _function in _COMPARISONS.items():
    _two(_name, _function, NUMBERS, jumps=True)
for _name, _function in {
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "bitwise_and": torch.bitwise_and,
    "bitwise_or": torch.bitwise_or,
    "logical_xor": torch.logical_xor,
}.items():
    _two(_name, _function, BOOLS)
add_kind("logical_not", lambda _c, x: torch.logical_not(x), BOOLS)
add_kind("bitwise_not", lambda _c, x: torch.bitwise_not(x), BOOLS)
_two("where_positive", lambda x, y: torch.where(x > 0, x, y), FLOATS, jumps=True)
_two("cat_last", lambda x, y: torch.cat([x, y.expand(x.shape)], -1), ALL)


# --- types

for _name, _dtype in {"half": torch.float16, "float": torch.float32}.items():
    add_kind(f"to_{_name}", lambda _c, x, dtype=_dtype: x.to(dtype), ALL)
for _name, _dtype in {"int32": torch.int32, "int64": torch.int64, "bool": torch.bool}.items():
    add_kind(f"to_{_name}", lambda _c, x, dtype=_dtype: x.to(dtype), ALL, jumps=True)


# --- along dimensions


@kind_of(FLOATS, dim=dims_of)
def softmax(_c: Any, x: Tensor, *, dim: int) -> Tensor:
    return torch.softmax(x, dim)


@kind_of(FLOATS, dim=dims_of)
def log_softmax(_c: Any, x: Tensor, *, dim: int) -> Tensor:
    return torch.log_softmax(x, dim)


@kind_of(FLOATS, dim=dims_of)
def cumsum(_c: Any, x: Tensor, *, dim: int) -> Tensor:
    return torch.cumsum(x, dim) / x.shape[dim]


for _name, _reduce in {"mean": torch.mean, "sum": torch.sum, "amax": torch.amax, "amin": torch.amin}.items():
    add_kind(
        _name,
        lambda _c, x, dims, keep, function=_reduce: function(
            x, tuple(range(x.dim())) if dims is None else dims, keepdim=keep
        ),
        FLOATS,
        dims=_reductions,
        keep=(False, True),
    )
for _name, _reduce in {"argmax": torch.argmax, "argmin": torch.argmin}.items():
    add_kind(
        _name,
        lambda _c, x, dim, keep, function=_reduce: function(x, dim, keepdim=keep),
        FLOATS,
        dim=dims_of,
        keep=(False, True),
        jumps=True,
    )


@kind_of(FLOATS, dim=dims_of, keep=(False, True))
def var(_c: Any, x: Tensor, *, dim: int, keep: bool) -> Tensor:
    return torch.var(x, dim, correction=0, keepdim=keep)


# --- matrices


@kind_of(FLOATS, out=when(last_static, (1, 3, 4, 5, 16, 33)), bias=(False, True))
def linear(c: Any, x: Tensor, *, out: int, bias: bool) -> Tensor:
    scale = 1 / math.sqrt(x.shape[-1])
    return F.linear(x, c.new((out, x.shape[-1]), x, scale), c.new((out,), x) if bias else None)


@kind_of(
    FLOATS, out=when(lambda v: last_static(v) and v.shape[-1] % 32 == 0, (4, 8, 32, 33)), bias=(False, True)
)
def linear_int4(c: Any, x: Tensor, *, out: int, bias: bool) -> Tensor:
    return c.linear_int4(x, out, bias)


@kind_of(
    FLOATS,
    out=when(lambda v: last_static(v) and v.shape[-1] % 4 == 0, (4, 8, 32, 33)),
    bias=(False, True),
    later=1,
)
def linear_int8(c: Any, x: Tensor, *, out: int, bias: bool) -> Tensor:
    return c.linear_int8(x, out, bias)


@kind_of(FLOATS, out=when(lambda v: v.rank >= 2 and last_static(v), (1, 3, 4, 5, 17)))
def matmul(c: Any, x: Tensor, *, out: int) -> Tensor:
    return x @ c.new((x.shape[-1], out), x, 1 / math.sqrt(x.shape[-1]))


@kind_of(FLOATS, out=when(lambda v: v.rank == 3 and {*v.static} >= {0, 2}, (1, 4, 5)))
def bmm(c: Any, x: Tensor, *, out: int) -> Tensor:
    return torch.bmm(x, c.new((x.shape[0], x.shape[-1], out), x, 1 / math.sqrt(x.shape[-1])))


@kind_of(FLOATS, scale=when(lambda v: v.rank >= 2 and last_static(v), (0.1, 1.0)))
def gram(_c: Any, x: Tensor, *, scale: float) -> Tensor:
    return (x * scale) @ x.transpose(-1, -2)


@kind_of(FLOATS, out=when(lambda v: v.rank == 2 and last_static(v), (1, 4, 5)))
def addmm(c: Any, x: Tensor, *, out: int) -> Tensor:
    return torch.addmm(c.new((out,), x), x, c.new((x.shape[-1], out), x, 1 / math.sqrt(x.shape[-1])))


@kind_of(FLOATS, causal=when(lambda v: v.rank == 4 and last_static(v), (False, True)))
def attention(_c: Any, x: Tensor, *, causal: bool) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x, is_causal=causal)


@kind_of(FLOATS, heads=when(lambda v: v.rank == 3 and last_static(v) and v.shape[-1] % 4 == 0, (1, 2, 4)))
def heads(_c: Any, x: Tensor, *, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, x.shape[-1] // heads)).transpose(1, 2)


@kind_of(FLOATS, dim=when(lambda v: v.rank >= 2 and last_static(v) and v.shape[-1] % 2 == 0, (-2,)))
def rotary(_c: Any, x: Tensor, *, dim: int) -> Tensor:
    angle = torch.arange(x.shape[dim], dtype=torch.float32, device=x.device)[:, None] * 0.1
    a, b = x.chunk(2, -1)
    return x * torch.cos(angle).to(x.dtype) + torch.cat([-b, a], -1) * torch.sin(angle).to(x.dtype)


# --- images and signals


def _padding(kernel: int) -> int:
    return kernel // 2


@kind_of(
    FLOATS,
    out=when(channels(3), (1, 3, 4, 6, 8)),
    kernel=(1, 2, 3, 5),
    stride=(1, 1, 2),
    pad=(False, True),
    dilation=(1, 1, 2),
    bias=(False, True),
)
def conv1d(
    c: Any, x: Tensor, *, out: int, kernel: int, stride: int, pad: bool, dilation: int, bias: bool
) -> Tensor:
    weight = c.new((out, x.shape[1], kernel), x, 1 / math.sqrt(x.shape[1] * kernel))
    return F.conv1d(x, weight, c.new((out,), x) if bias else None, stride, _padding(kernel) * pad, dilation)


@kind_of(FLOATS, kernel=when(channels(3), (1, 3, 4)), stride=(1, 2), pad=(0, 1), bias=(False, True))
def conv1d_depthwise(c: Any, x: Tensor, *, kernel: int, stride: int, pad: int, bias: bool) -> Tensor:
    many = x.shape[1]
    return F.conv1d(
        x, c.new((many, 1, kernel), x, 0.5), c.new((many,), x) if bias else None, stride, pad, 1, many
    )


@kind_of(
    FLOATS,
    out=when(channels(4), (1, 3, 4, 8)),
    kernel=(1, 2, 3, 5),
    stride=(1, 1, 2),
    pad=(False, True),
    dilation=(1, 1, 2),
    bias=(False, True),
)
def conv2d(
    c: Any, x: Tensor, *, out: int, kernel: int, stride: int, pad: bool, dilation: int, bias: bool
) -> Tensor:
    weight = c.new((out, x.shape[1], kernel, kernel), x, 1 / math.sqrt(x.shape[1] * kernel**2))
    return F.conv2d(x, weight, c.new((out,), x) if bias else None, stride, _padding(kernel) * pad, dilation)


@kind_of(FLOATS, kernel=when(channels(4), (1, 3, 5)), stride=(1, 2), pad=(0, 1, 2), dilation=(1, 2))
def conv2d_depthwise(c: Any, x: Tensor, *, kernel: int, stride: int, pad: int, dilation: int) -> Tensor:
    many = x.shape[1]
    return F.conv2d(
        x, c.new((many, 1, kernel, kernel), x, 0.5), c.new((many,), x), stride, pad, dilation, many
    )


@kind_of(
    FLOATS,
    groups=when(lambda v: v.rank in {3, 4} and 1 not in v.dynamic and v.shape[1] % 2 == 0, (2,)),
    kernel=(1, 3),
    stride=(1, 2),
)
def conv_grouped(c: Any, x: Tensor, *, groups: int, kernel: int, stride: int) -> Tensor:
    spread = (kernel,) * (x.dim() - 2)
    weight = c.new((4, x.shape[1] // groups, *spread), x, 0.5)
    convolve = F.conv1d if x.dim() == 3 else F.conv2d
    return convolve(x, weight, c.new((4,), x), stride, kernel // 2, 1, groups)


@kind_of(FLOATS, out=when(channels(4), (2, 3, 4)), kernel=(2, 3), stride=(1, 2), pad=(0, 1), groups=(1, 1, 2))
def conv_transpose2d(
    c: Any, x: Tensor, *, out: int, kernel: int, stride: int, pad: int, groups: int
) -> Tensor:
    weight = c.new((x.shape[1], out, kernel, kernel), x, 0.5)
    return F.conv_transpose2d(x, weight, c.new((out * groups,), x), stride, pad, 0, groups)


@kind_of(FLOATS, out=when(channels(3), (2, 4)), kernel=(2, 3), stride=(1, 2))
def conv_transpose1d(c: Any, x: Tensor, *, out: int, kernel: int, stride: int) -> Tensor:
    return F.conv_transpose1d(x, c.new((x.shape[1], out, kernel), x, 0.5), c.new((out,), x), stride)


for _name, _pool in {
    "avg_pool1d": F.avg_pool1d,
    "max_pool1d": F.max_pool1d,
    "avg_pool2d": F.avg_pool2d,
    "max_pool2d": F.max_pool2d,
}.items():
    add_kind(
        _name,
        lambda _c, x, kernel, stride, pad, ceil, function=_pool: function(
            x, kernel, stride, pad, ceil_mode=ceil
        ),
        FLOATS,
        kernel=when(of_rank(3 if _name.endswith("1d") else 4), (2, 3)),
        stride=(1, 2),
        pad=(0, 1),
        ceil=(False, False, True),
    )
for _name, _size, _ranks in (("1d", 1, (3,)), ("2d", 1, (4,)), ("2d_two", 2, (4,))):
    add_kind(
        f"adaptive_avg_pool{_name}",
        lambda _c, x, size: (F.adaptive_avg_pool1d if x.dim() == 3 else F.adaptive_avg_pool2d)(x, size),
        FLOATS,
        size=when(of_rank(*_ranks), (_size,)),
    )


@kind_of(FLOATS, scale=when(of_rank(4), (2, 3)))
def upsample_nearest(_c: Any, x: Tensor, *, scale: int) -> Tensor:
    return F.interpolate(x, scale_factor=scale, mode="nearest")


@kind_of(FLOATS, scale=when(of_rank(4), (2, 3)), corners=(False, True))
def upsample_bilinear(_c: Any, x: Tensor, *, scale: int, corners: bool) -> Tensor:
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=corners)


@kind_of(FLOATS, factor=when(lambda v: channels(4)(v) and v.shape[1] % 4 == 0, (2,)))
def pixel_shuffle(_c: Any, x: Tensor, *, factor: int) -> Tensor:
    return F.pixel_shuffle(x, factor)


@kind_of(FLOATS, corners=when(lambda v: v.rank == 4 and not v.dynamic, (True, True, False)), out=(2, 5))
def grid_sample(c: Any, x: Tensor, *, corners: bool, out: int) -> Tensor:
    grid = c.new((x.shape[0], out, out, 2), x, 0.5)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=corners)


# --- norms


@kind_of(FLOATS, count=when(lambda v: v.rank and last_static(v), (1, 1, 2)), affine=(True, True, False))
def layer_norm(c: Any, x: Tensor, *, count: int, affine: bool) -> Tensor:
    shape = x.shape[-count:]
    weight, bias = (c.new(shape, x), c.new(shape, x)) if affine else (None, None)
    return F.layer_norm(x, shape, weight, bias, 1e-5)


@kind_of(FLOATS, affine=when(lambda v: v.rank and last_static(v), (True, False)))
def rms_norm(c: Any, x: Tensor, *, affine: bool) -> Tensor:
    shape = x.shape[-1:]
    return F.rms_norm(x, shape, c.new(shape, x) if affine else None, 1e-5)


@kind_of(FLOATS, eps=when(lambda v: v.rank in {2, 3, 4} and 1 not in v.dynamic, (1e-5, 1e-3)))
def batch_norm(c: Any, x: Tensor, *, eps: float) -> Tensor:
    each = (x.shape[1],)
    mean, weight, bias = (c.new(each, x) for _ in range(3))
    return F.batch_norm(x, mean, c.new(each, x).abs() + 0.5, weight, bias, False, 0.1, eps)


@kind_of(
    FLOATS, groups=when(lambda v: v.rank in {3, 4} and 1 not in v.dynamic and v.shape[1] % 2 == 0, (1, 2))
)
def group_norm(c: Any, x: Tensor, *, groups: int) -> Tensor:
    each = (x.shape[1],)
    return F.group_norm(x, groups, c.new(each, x), c.new(each, x), 1e-5)


# --- shapes


@kind_of(ALL, order=lambda v: [list(p) for p in itertools.permutations(range(v.rank))][1:])
def permute(_c: Any, x: Tensor, *, order: Sequence[int]) -> Tensor:
    return x.permute(*order)


@kind_of(ALL, dims=lambda v: [list(p) for p in itertools.combinations(range(v.rank), 2)])
def transpose(_c: Any, x: Tensor, *, dims: Sequence[int]) -> Tensor:
    return x.transpose(*dims)


add_kind("t", lambda _c, x, times: x.t() if times else x, ALL, times=when(of_rank(2), (1,)))


@kind_of(ALL, dims=lambda v: [[a, b] for a in range(v.rank) for b in range(a + 1, v.rank)])
def flatten(_c: Any, x: Tensor, *, dims: Sequence[int]) -> Tensor:
    return x.flatten(*dims)


@kind_of(
    ALL,
    at=lambda v: [
        [dim, size] for dim in v.static for size in (1, 2, 3, 4) if v.rank < 5 and v.shape[dim] % size == 0
    ],
)
def unflatten(_c: Any, x: Tensor, *, at: Sequence[int]) -> Tensor:
    return x.unflatten(at[0], (at[1], x.shape[at[0]] // at[1]))


@kind_of(ALL, dim=lambda v: [*range(v.rank + 1), -1] if v.rank < 5 else ())
def unsqueeze(_c: Any, x: Tensor, *, dim: int) -> Tensor:
    return x.unsqueeze(dim)


@kind_of(ALL, dim=lambda v: [dim for dim in v.static if v.shape[dim] == 1])
def squeeze(_c: Any, x: Tensor, *, dim: int) -> Tensor:
    return x.squeeze(dim)


add_kind(
    "squeeze_all",
    lambda _c, x, whole: x.squeeze() if whole else x,
    ALL,
    whole=lambda v: (True,) if any(v.shape[dim] == 1 for dim in v.static) else (),
)


@kind_of(ALL, dim=lambda v: [dim for dim in v.static if v.shape[dim] == 1], size=(2, 3))
def expand(_c: Any, x: Tensor, *, dim: int, size: int) -> Tensor:
    return x.expand(*(size if at == dim else -1 for at in range(x.dim())))


@kind_of(ALL, size=lambda v: (2, 3) if v.rank < 5 else ())
def expand_front(_c: Any, x: Tensor, *, size: int) -> Tensor:
    return x.unsqueeze(0).expand(size, *x.shape)


@kind_of(
    ALL,
    times=lambda v: [[1] * dim + [2] + [1] * (v.rank - dim - 1) for dim in range(v.rank)] + [[2] * v.rank],
)
def repeat(_c: Any, x: Tensor, *, times: Sequence[int]) -> Tensor:
    return x.repeat(*times)


@kind_of(ALL, dim=_static_dims, constant=lambda v: (0,) if v.dynamic else (0, 1, 3))
def cat(c: Any, x: Tensor, *, dim: int, constant: int) -> Tensor:
    if constant:
        return torch.cat([x, c.new([constant if at == dim else s for at, s in enumerate(x.shape)], x)], dim)
    return torch.cat([x, x], dim)


@kind_of(NUMBERS, dim=dims_of)
def cat_both(_c: Any, x: Tensor, *, dim: int) -> Tensor:
    return torch.cat([x, x + 1, x], dim)


@kind_of(NUMBERS, dim=lambda v: range(v.rank + 1) if v.rank < 4 else ())
def stack(_c: Any, x: Tensor, *, dim: int) -> Tensor:
    return torch.stack([x, x * 2], dim)


@kind_of(ALL, at=lambda v: [[dim, index] for dim in range(v.rank) for index in (0, -1)])
def select(_c: Any, x: Tensor, *, at: Sequence[int]) -> Tensor:
    return x.select(*at)


@kind_of(
    ALL,
    at=lambda v: [
        [dim, start, end, step]
        for dim in v.static
        for start, end, step in ((0, 1, 1), (1, None, 1), (0, -1, 1), (0, None, 2), (1, 3, 1))
        if v.shape[dim] > start + 1
    ],
)
def slice_(_c: Any, x: Tensor, *, at: Sequence[Any]) -> Tensor:
    dim, start, end, step = at
    return x[(slice(None),) * dim + (slice(start, end, step),)]


@kind_of(ALL, at=lambda v: [[dim, end] for dim in v.dynamic for end in (1, -1)])
def slice_dynamic(_c: Any, x: Tensor, *, at: Sequence[int]) -> Tensor:
    return x[(slice(None),) * at[0] + (slice(0, at[1]),)]


@kind_of(NUMBERS, at=lambda v: [[dim, cut] for dim in v.static for cut in (1, 2) if v.shape[dim] > cut])
def split(_c: Any, x: Tensor, *, at: Sequence[int]) -> Tensor:
    dim, cut = at
    a, b = x.split([cut, x.shape[dim] - cut], dim)
    return torch.cat([b, a], dim)


@kind_of(ALL, at=lambda v: [[dim, part] for dim in v.static for part in (0, 1) if v.shape[dim] >= 2])
def chunk(_c: Any, x: Tensor, *, at: Sequence[int]) -> Tensor:
    return x.chunk(2, at[0])[at[1]]


@kind_of(ALL, dim=dims_of)
def flip(_c: Any, x: Tensor, *, dim: int) -> Tensor:
    return x.flip(dim)


@kind_of(ALL, dim=_static_dims, count=(1, 3, 5))
def index_select(c: Any, x: Tensor, *, dim: int, count: int) -> Tensor:
    return x.index_select(dim, c.indices((count,), x.shape[dim], x))


@kind_of(ALL, dim=_static_dims, count=(1, 4, 5))
def index(c: Any, x: Tensor, *, dim: int, count: int) -> Tensor:
    return x[(slice(None),) * dim + (c.indices((count,), x.shape[dim], x),)]


@kind_of(ALL, dim=when(lambda v: bool(v.rank) and not v.dynamic, (0, -1)), count=(1, 3))
def gather(c: Any, x: Tensor, *, dim: int, count: int) -> Tensor:
    shape = [count if at == dim % x.dim() else size for at, size in enumerate(x.shape)]
    return x.gather(dim, c.indices(shape, x.shape[dim], x))


@kind_of(
    ALL,
    pad=lambda v: [p for p in ([1, 0], [0, 2], [2, 1], [0, 0, 1, 1], [1, 1, 0, 2]) if len(p) <= 2 * v.rank],
    value=(0, 1, 0.0),
)
def pad(_c: Any, x: Tensor, *, pad: Sequence[int], value: float) -> Tensor:
    return F.pad(
        x, pad, value=value if x.is_floating_point() else bool(value) if x.dtype is torch.bool else int(value)
    )


for _mode in ("circular", "reflect", "replicate"):
    add_kind(
        f"pad_{_mode}",
        lambda _c, x, pad, mode=_mode: F.pad(x, pad, mode=mode),
        FLOATS,
        pad=when(lambda v: v.rank == 3 and v.shape[-1] > 1, ([1, 1], [0, 1])),
    )


@kind_of(FLOATS, at=lambda v: [[dim, 2, step] for dim in v.static for step in (1, 2) if v.shape[dim] >= 2])
def unfold(_c: Any, x: Tensor, *, at: Sequence[int]) -> Tensor:
    return x.unfold(*at)


@kind_of(FLOATS, diagonal=when(lambda v: v.rank >= 2, (0, 1, -1)))
def tril(_c: Any, x: Tensor, *, diagonal: int) -> Tensor:
    return torch.tril(x, diagonal)


@kind_of(FLOATS, diagonal=when(lambda v: v.rank >= 2, (0, 1)))
def triu(_c: Any, x: Tensor, *, diagonal: int) -> Tensor:
    return torch.triu(x, diagonal)


@kind_of(FLOATS, dim=dims_of)
def roll(_c: Any, x: Tensor, *, dim: int) -> Tensor:
    return x.roll(1, dim)


@kind_of(FLOATS, dim=_static_dims)
def repeat_interleave(_c: Any, x: Tensor, *, dim: int) -> Tensor:
    return x.repeat_interleave(2, dim)


@kind_of(FLOATS, wanted=when(of_rank(4), (True,)))
def channels_last(_c: Any, x: Tensor, *, wanted: bool) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last if wanted else torch.contiguous_format)


# --- tensors made from sizes, and masks


@kind_of(FLOATS, dim=dims_of)
def add_positions(_c: Any, x: Tensor, *, dim: int) -> Tensor:
    at = torch.arange(x.shape[dim], dtype=x.dtype, device=x.device) * 0.01
    return x + at.reshape([-1] + [1] * (x.dim() - 1 - dim % x.dim()))


for _name, _fill in {"zeros_like": torch.zeros_like, "ones_like": torch.ones_like}.items():
    add_kind(f"add_{_name}", lambda _c, x, function=_fill: x + function(x), NUMBERS)
add_kind("full_like", lambda _c, x, value: torch.full_like(x, value) * x, FLOATS, value=(0.0, 1.0, 2.5))
add_kind(
    "full",
    lambda _c, x, value: torch.full(x.shape, value, dtype=x.dtype, device=x.device) + x,
    FLOATS,
    value=(0.0, 1.0, 3.0),
)
add_kind(
    "scalar_tensor",
    lambda _c, x, value: x + torch.scalar_tensor(value, dtype=x.dtype, device=x.device),
    FLOATS,
    value=(0.5, 1.0),
)


@kind_of(FLOATS, value=when(lambda v: v.rank >= 2, (0.0, -1.0, -100.0, -3.4028234663852886e38)))
def causal_mask(_c: Any, x: Tensor, *, value: float) -> Tensor:
    rows, columns = (torch.arange(size, device=x.device) for size in x.shape[-2:])
    return x.masked_fill(columns > rows[:, None], max(value, torch.finfo(x.dtype).min))


@kind_of(FLOATS, value=(0.0, -2.0), constant=_broadcasts)
def masked_fill(c: Any, x: Tensor, *, value: float, constant: Sequence[int]) -> Tensor:
    return x.masked_fill(c.new(constant, torch.empty(0, dtype=torch.bool, device=x.device)), value)


@kind_of(FLOATS, constant=_broadcasts)
def where(c: Any, x: Tensor, *, constant: Sequence[int]) -> Tensor:
    return torch.where(c.new(constant, torch.empty(0, dtype=torch.bool, device=x.device)), x, x * 2)


@kind_of((torch.float32,), scale=(0.05, 0.25), zero=(0, 3), jumps=True)
def fake_quantize(_c: Any, x: Tensor, *, scale: float, zero: int) -> Tensor:
    ops = torch.ops.quantized_decomposed
    codes = ops.quantize_per_tensor.default(x, scale, zero, -128, 127, torch.int8)
    return ops.dequantize_per_tensor.default(codes, scale, zero, -128, 127, torch.int8)


# --- 8-bit activations, what training computes, state


@kind_of(
    (torch.float32,),
    out=when(lambda v: v.rank > 1 and last_static(v) and v.shape[-1] % 32 == 0, (4, 8, 32, 128)),
    bits=(4, 8),
    bias=(False, True),
    coarse=True,
    later=1,
)
def linear_int8_activations(c: Any, x: Tensor, *, out: int, bits: int, bias: bool) -> Tensor:
    return c.linear_dynamic(x, out, bias, bits)


@kind_of(
    FLOATS,
    of=("threshold", "sigmoid", "tanh", "gelu", "softmax"),
    scale=when(lambda v: v.rank > 0 and not v.dynamic, (1.0, 0.1)),
    later=1,
)
def backward(c: Any, x: Tensor, *, of: str, scale: float) -> Tensor:
    ops, grad = torch.ops.aten, c.new(x.shape, x, scale)
    if of == "threshold":
        return ops.threshold_backward.default(grad, x, 0)
    if of == "gelu":
        return ops.gelu_backward.default(grad, x)
    if of == "softmax":
        return ops._softmax_backward_data.default(grad, torch.softmax(x, -1), -1, x.dtype)  # noqa: SLF001 - the operator's name
    return getattr(ops, f"{of}_backward").default(grad, getattr(torch, of)(x))


_CACHED: Final = 8  # rows


@kind_of(
    FLOATS,
    how=when(
        lambda v: v.rank in {2, 3, 4} and not v.dynamic and v.shape[-2] <= _CACHED // 2,
        ("index_copy", "index_put", "slice_scatter"),
    ),
    at=(0, 2, 4),
    later=1,
)
def cache(c: Any, x: Tensor, *, how: str, at: int) -> Tensor:
    state, end = c.state((*x.shape[:-2], _CACHED, x.shape[-1]), x), at + x.shape[-2]
    rows = torch.arange(at, end, device=x.device)
    if how == "index_copy":
        state.index_copy_(-2, rows, x)
    elif how == "index_put":
        state[..., rows, :] = x
    else:
        state.copy_(torch.slice_scatter(state, x, -2, at, end))
    return state + x.mean()


# --- tables of other bits, with zero points; experts; states of bytes


def _divisors(view: View) -> list[int]:
    """Columns of a group, of those that a matrix for a value has."""
    return [size for size in (8, 16, 32, 64) if last_static(view) and view.shape[-1] % size == 0]


@kind_of(
    FLOATS,
    group=_divisors,
    out=(4, 5, 8, 32, 33),
    bits=(4, 5, 6, 7, 8, 8),
    points=(False, True),
    bias=(False, True),
    later=2,
)
def linear_digits(c: Any, x: Tensor, *, out: int, group: int, bits: int, points: bool, bias: bool) -> Tensor:
    weight = c.dequantized((out, x.shape[-1]), x, bits, (1, group), points=points)
    return F.linear(x, weight, c.new((out,), x) if bias else None)


_CONVOLUTIONS: Final = {3: (F.conv1d, F.conv_transpose1d), 4: (F.conv2d, F.conv_transpose2d)}
_OF_IMAGES: Final = when(
    lambda v: v.rank in _CONVOLUTIONS and 1 not in v.dynamic, (False, False, True)
)  # zero points


@kind_of(
    FLOATS,
    points=_OF_IMAGES,
    out=(4, 6, 8, 10),
    kernel=(1, 2, 3, 5),
    stride=(1, 1, 2),
    pad=(False, True),
    dilation=(1, 1, 2),
    groups=lambda v: (1, 1, 2) if v.shape[1] % 2 == 0 else (1,),
    bias=(False, True),
    later=2,
)
def conv_int8(
    c: Any,
    x: Tensor,
    *,
    points: bool,
    out: int,
    kernel: int,
    pad: bool,
    groups: int,
    bias: bool,
    **moves: int,
) -> Tensor:
    weight = c.kernels((out, x.shape[1] // groups), kernel, x, points=points)
    bias_of = c.new((out,), x) if bias else None
    return _CONVOLUTIONS[x.dim()][0](
        x, weight, bias_of, padding=_padding(kernel) * pad, groups=groups, **moves
    )


@kind_of(FLOATS, points=_OF_IMAGES, kernel=(1, 3, 5), stride=(1, 2), pad=(0, 1, 2), dilation=(1, 2), later=2)
def conv_int8_depthwise(
    c: Any, x: Tensor, *, points: bool, kernel: int, stride: int, pad: int, dilation: int
) -> Tensor:
    many = x.shape[1]
    weight = c.kernels((many, 1), kernel, x, points=points)
    return _CONVOLUTIONS[x.dim()][0](x, weight, c.new((many,), x), stride, pad, dilation, many)


@kind_of(FLOATS, points=_OF_IMAGES, out=(2, 4), kernel=(2, 3), stride=(1, 2), pad=(0, 1), later=2)
def conv_int8_transposed(
    c: Any, x: Tensor, *, points: bool, out: int, kernel: int, stride: int, pad: int
) -> Tensor:
    weight = c.kernels((x.shape[1], out), kernel, x, points=points)
    return _CONVOLUTIONS[x.dim()][1](x, weight, c.new((out,), x), stride, pad)


_EXPERTS: Final = 4


@kind_of(
    (torch.float32,),
    how=when(lambda v: v.rank == 2 and last_static(v) and v.shape[-1] % 8 == 0, ("indexed", "masked")),
    bits=(0, 4, 8),
    jumps=True,
    later=2,
)
def experts(c: Any, x: Tensor, *, how: str, bits: int) -> Tensor:
    columns = x.shape[-1]
    scores = torch.softmax(F.linear(x, c.new((_EXPERTS, columns), x)), -1)
    up, down = (
        c.dequantized(shape, x, bits, (1, 1, 8), points=False) if bits else c.new(shape, x, 0.2)
        for shape in ((_EXPERTS, 16, columns), (_EXPERTS, columns, 16))
    )
    chosen, which = torch.topk(scores, 2)
    if how == "indexed":  # as in ExecuTorch's example
        inner = F.silu(torch.einsum("ti,taoi->tao", x, up[which]))
        return torch.einsum("tai,ta->ti", torch.einsum("tao,taio->tai", inner, down[which]), chosen)
    shares = torch.zeros_like(scores).scatter(-1, which, chosen)
    inner = F.silu(torch.einsum("ti,eoi->teo", x, up))
    return torch.einsum("tei,te->ti", torch.einsum("teo,eio->tei", inner, down), shares)


@kind_of(
    (torch.float32,),
    how=when(
        lambda v: v.rank in {2, 3, 4} and not v.dynamic and v.shape[-2] <= _CACHED // 2,
        ("index_copy", "index_put"),
    ),
    at=(0, 2, 4),
    coarse=True,
    later=2,
)
def cache_int8(c: Any, x: Tensor, *, how: str, at: int) -> Tensor:
    ops, rows = torch.ops.quantized_decomposed, torch.arange(at, at + x.shape[-2], device=x.device)
    scales, points = ops.choose_qparams_per_token_asymmetric.default(x, torch.int8)
    values = ops.quantize_per_token.default(x, scales, points, -128, 127, torch.int8)
    kept = [c.state((*x.shape[:-2], _CACHED, part.shape[-1]), part) for part in (values, scales, points)]
    for state, part in zip(kept, (values, scales, points), strict=True):
        if how == "index_copy":
            state.index_copy_(-2, rows, part)
        else:
            state[..., rows, :] = part
    return ops.dequantize_per_token.default(*kept, -128, 127, torch.int8, torch.float32) + x.mean()


# --- lookups, from indices


@kind_of((), rows=(3, 100), columns=(32, 64, 128), group=(32,))
def table(c: Any, x: Tensor, *, rows: int, columns: int, group: int, half: bool = False) -> Tensor:
    return c.table_int4(x, rows, columns, group, torch.float16 if half else torch.float32)


@kind_of((), rows=(3, 100), columns=(3, 4, 16))
def embedding(c: Any, x: Tensor, *, rows: int, columns: int, half: bool = False) -> Tensor:
    like = torch.empty(0, dtype=torch.float16 if half else torch.float32, device=x.device)
    return F.embedding(x, c.new((rows, columns), like))


@kind_of(
    (),
    rows=(3, 100),
    columns=(4, 8, 32, 48, 64, 96, 128),
    groups=(1, 1, 2, 4),
    bits=(2, 3, 4, 4, 5, 6, 8),
    points=(False, True),
    later=2,
)
def table_any(
    c: Any, x: Tensor, *, rows: int, columns: int, groups: int, bits: int, points: bool, half: bool = False
) -> Tensor:
    like = torch.empty(0, dtype=torch.float16 if half else torch.float32, device=x.device)
    weight = c.dequantized((rows, columns), like, bits, (1, columns // groups), points=points)
    return F.embedding(x, weight)


def names(*, later: int = 0) -> Iterator[str]:
    """Kinds that a program may start with, of those that came later the lookups too."""
    return (name for name, kind in KINDS.items() if (kind.takes or later) and kind.later == later)


def steps() -> Iterator[str]:
    """Kinds of all times that read a value."""
    return (name for name, kind in KINDS.items() if kind.takes)
