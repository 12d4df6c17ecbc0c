"""A spec -> the program that it describes, its inputs at any lengths, and what it computes eagerly.

A spec is plain JSON, enough to build the same program anywhere::

    {"id": 7, "dtype": "float32", "storage": "texture", "small_textures": false, "fp16": false,
     "lengths": {"n": [1, 5, 16]},                                   # shortest, example, longest of a dynamic size
     "inputs": [{"shape": [1, "n"], "dtype": "int64", "rows": 100}],   # "rows": indices; "order": "channels_last";
                                                     # "fill": a name of _FILLS; {"value": 2}: a number, or None
     "steps": [{"kind": "table", "of": [0], "with": {"rows": 100, "columns": 32, "group": 32}},
               {"kind": "softmax", "of": [1], "with": {"dim": -1}}],     # values are numbered: inputs, then steps
     "outputs": [2]}
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import kinds_layers  # noqa: F401 - adds its kinds
import kinds_models  # noqa: F401 - adds its kinds
import torch
from kinds import KINDS
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._python_dispatch import TorchDispatchMode
from torchao.quantization import Int8DynamicActivationIntxWeightConfig, IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerAxis, PerGroup

Spec = Mapping[str, Any]
_NOISE = {torch.float32: 1e-6, torch.float16: 1e-3}


class Constants(nn.Module):
    """Weights, made on the first pass and found again, in the order of asking, on later ones."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)
        self._began: dict[str, Tensor] = {}

    def begins(self, name: str, state: Tensor) -> None:
        """Keep what a state is before the first call."""
        self.register_buffer(name, state)
        self._began[name] = state.clone()

    def reset(self) -> None:
        """Set every state to what it was."""
        for name, state in self._began.items():
            getattr(self, name).copy_(state)


class Feed:
    """One pass over the constants of a program."""

    def __init__(self, store: Constants) -> None:
        self._store, self._names = store, (f"c{number}" for number in range(1000))

    def _next(self, make: Any) -> Any:
        name = next(self._names)
        if not hasattr(self._store, name):
            setattr(self._store, name, make())
        return getattr(self._store, name)

    def new(self, shape: Sequence[int], like: Tensor, scale: float = 1.0) -> Tensor:
        """A random constant of the type of `like`."""
        if like.is_meta:
            return torch.empty(shape, dtype=like.dtype, device="meta")
        return self._next(lambda: _constant(tuple(shape), like.dtype, scale, self._store.generator))

    def state(self, shape: Sequence[int], like: Tensor, *, zeros: bool = False) -> Tensor:
        """A tensor that lasts from call to call."""
        if like.is_meta:
            return torch.empty(shape, dtype=like.dtype, device="meta")
        name = next(self._names)
        if not hasattr(self._store, name):
            drawn = torch.randn(tuple(shape), generator=self._store.generator)
            self._store.begins(name, (drawn * (not zeros)).to(like.dtype))
        return getattr(self._store, name)

    def dequantized(
        self, shape: Sequence[int], like: Tensor, bits: int, block: Sequence[int], *, points: bool
    ) -> Tensor:
        """A table of `bits` with a scale, and maybe a zero point, for each `block`; sums of its products are about one."""
        if like.is_meta:
            return torch.empty(shape, dtype=like.dtype, device="meta")
        high = 2 ** (bits - 1) - 1
        low, spread = -high - 1, [size // part for size, part in zip(shape, block, strict=True)]
        scale = 2 / (high + 1) / math.sqrt(math.prod(shape[1:]))
        values = self._next(lambda: self._integers(shape, low, high))
        scales = self._next(lambda: nn.Buffer((self._shares(spread) + 0.5).mul(scale).to(like.dtype)))
        zero = self._next(lambda: self._integers(spread, low * points, high * points))
        operator = torch.ops.torchao.dequantize_affine.default
        return operator(values, block, scales, zero, torch.int8, low, high, output_dtype=like.dtype)

    def kernels(self, shape: Sequence[int], kernel: int, like: Tensor, *, points: bool) -> Tensor:
        """8-bit weights of a convolution as PT2E leaves them, [*shape, kernel, ...], with a scale for each of its first."""
        whole = (*shape, *[kernel] * (like.dim() - 2))
        if like.is_meta:
            return torch.empty(whole, dtype=like.dtype, device="meta")
        scale = 1 / 64 / math.sqrt(math.prod(whole[1:]))
        values = self._next(lambda: self._integers(whole, -127, 127))
        scales = self._next(lambda: nn.Buffer((self._shares(shape[:1]) + 0.5) * scale))
        zero = self._next(lambda: self._integers(shape[:1], -20 * points, 20 * points).to(torch.int64))
        parts = (values, scales, zero, 0, -128, 127, torch.int8)
        operator = torch.ops.quantized_decomposed.dequantize_per_channel.default
        return operator(*parts, out_dtype=like.dtype)

    def _integers(self, shape: Sequence[int], low: int, high: int) -> Any:
        drawn = torch.randint(low, high + 1, tuple(shape), generator=self._store.generator)
        return nn.Buffer(drawn.to(torch.int8))

    def _shares(self, shape: Sequence[int]) -> Tensor:
        return torch.rand(tuple(shape), generator=self._store.generator)

    def linear_dynamic(self, x: Tensor, out: int, bias: bool, bits: int) -> Tensor:
        """A linear of 8-bit activations on a 4-bit weight in groups of 32, or an 8-bit one."""
        if x.is_meta:
            return torch.empty((*x.shape[:-1], out), dtype=x.dtype, device="meta")
        layer = nn.Linear(x.shape[-1], out, bias, dtype=x.dtype)
        config = Int8DynamicActivationIntxWeightConfig(
            weight_dtype=torch.int4 if bits == 4 else torch.int8,
            weight_granularity=PerGroup(32) if bits == 4 else PerAxis(0),
        )
        return self._next(lambda: self._configured(layer, config))(x)

    def indices(self, shape: Sequence[int], rows: int, like: Tensor) -> Tensor:
        """Random constant indices."""
        if like.is_meta:
            return torch.empty(shape, dtype=torch.int64, device="meta")
        return self._next(
            lambda: nn.Buffer(torch.randint(rows, tuple(shape), generator=self._store.generator))
        )

    def table_int4(self, ids: Tensor, rows: int, columns: int, group: int, dtype: torch.dtype) -> Tensor:
        """A lookup in a 4-bit table."""
        if ids.is_meta:
            return torch.empty((*ids.shape, columns), dtype=dtype, device="meta")
        return self._next(
            lambda: self._quantized(nn.Embedding(rows, columns, dtype=dtype), torch.int4, PerGroup(group))
        )(ids)

    def linear_int4(self, x: Tensor, out: int, bias: bool) -> Tensor:
        """A linear on a 4-bit weight."""
        return self._linear(x, out, bias, torch.int4, PerGroup(32))

    def linear_int8(self, x: Tensor, out: int, bias: bool) -> Tensor:
        """A linear on an 8-bit weight with a scale for each output."""
        return self._linear(x, out, bias, torch.int8, PerAxis(0))

    def layer(self, x: Tensor, out: int, bias: bool, config: Any) -> Tensor:
        """A linear that torchao quantizes by a configuration."""
        if x.is_meta:
            return torch.empty((*x.shape[:-1], out), dtype=x.dtype, device="meta")
        layer = nn.Linear(x.shape[-1], out, bias, dtype=x.dtype)
        return self._next(lambda: self._configured(layer, config))(x)

    def module(self, make: Callable[[], nn.Module], config: Any = None) -> nn.Module:
        """A module with random parameters; a configuration is torchao's, of its tables and linears."""
        return self._next(lambda: self._configured(make(), config))

    def _linear(self, x: Tensor, out: int, bias: bool, bits: torch.dtype, scales: Any) -> Tensor:
        if x.is_meta:
            return torch.empty((*x.shape[:-1], out), dtype=x.dtype, device="meta")
        layer = nn.Linear(x.shape[-1], out, bias, dtype=x.dtype)
        return self._next(lambda: self._quantized(layer, bits, scales))(x)

    def _quantized(self, module: nn.Module, bits: torch.dtype, scales: Any) -> nn.Module:
        return self._configured(module, IntxWeightOnlyConfig(weight_dtype=bits, granularity=scales))

    def _configured(self, module: nn.Module, config: Any) -> nn.Module:
        for parameter in module.parameters():
            parameter.data.normal_(0, 0.5, generator=self._store.generator)
        if config is not None:
            quantize_(module, config, lambda part, _name: isinstance(part, nn.Embedding | nn.Linear))
        return module


def _constant(shape: tuple[int, ...], dtype: torch.dtype, scale: float, generator: torch.Generator) -> Any:
    if dtype.is_floating_point:
        made = torch.randn(shape, generator=generator) * scale
        return nn.Parameter(made.to(dtype), requires_grad=False)
    return nn.Buffer(_whole(shape, dtype, generator))


def _whole(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(-5, 6, shape, generator=generator)
    return drawn > 0 if dtype is torch.bool else drawn.to(dtype)


class Program(nn.Module):
    """The steps of a spec, one after the other. `noise`: each float step is off by this share of its value."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec, self.noise = spec, {}
        self.store = Constants(spec["id"])

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs."""
        values = evaluate(self.spec["steps"], list(inputs), Feed(self.store), self.noise)
        return tuple(values[number] for number in self.spec["outputs"])


def evaluate(
    steps: Sequence[Mapping[str, Any]], values: list[Tensor], feed: Feed, noise: Mapping[torch.dtype, float]
) -> list[Tensor]:
    """All values of a program, in order."""
    for step in steps:
        made = KINDS[step["kind"]].apply(feed, *(values[number] for number in step["of"]), **step["with"])
        values.append(_rounded(made, noise[made.dtype]) if made.dtype in noise else made)
    return values


def _rounded(made: Tensor, share: float) -> Tensor:
    """A value with random errors of `share` of it; next to zero, of what a sum of values about 1 leaves there."""
    return made + (share * (made.abs() + 0.1) * torch.randn(made.shape)).to(made.dtype)


def build(spec: Spec) -> Program:
    """The program of a spec with its constants made."""
    torch.manual_seed(spec["id"])
    program = Program(spec).eval()
    with torch.no_grad():
        program(*inputs(spec, 1))
        program.store.reset()
    return program


def export(spec: Spec) -> ExportedProgram:
    """The exported program of a spec."""
    sizes = {name: Dim(name, min=low, max=high) for name, (low, _, high) in spec["lengths"].items()}
    dynamic = tuple(
        {at: sizes[of] for at, of in enumerate(each["shape"]) if of in sizes} if "shape" in each else None
        for each in spec["inputs"]
    )
    with torch.no_grad():
        return torch.export.export(build(spec), inputs(spec, 1), dynamic_shapes=(dynamic,) if sizes else None)


def inputs(spec: Spec, at: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Random inputs; `at`: 0 at the shortest, 1 at the example's, 2 at the longest lengths."""
    generator = torch.Generator().manual_seed(1000 * spec["id"] + 10 * seed + at)
    lengths = {name: sizes[at] for name, sizes in spec["lengths"].items()}
    return tuple(_input(each, lengths, generator) for each in spec["inputs"])


def _input(of: Mapping[str, Any], lengths: Mapping[str, int], generator: torch.Generator) -> Tensor:
    if "value" in of:
        return of["value"]
    shape = tuple(lengths.get(size, size) for size in of["shape"])
    dtype = getattr(torch, of["dtype"])
    if "rows" in of:
        return torch.randint(of["rows"], shape, generator=generator).to(dtype)
    made = (
        _FILLS[of["fill"]](shape, generator).to(dtype)
        if of.get("fill")
        else torch.randn(shape, generator=generator).to(dtype)
        if dtype.is_floating_point
        else _whole(shape, dtype, generator)
    )
    return made.contiguous(memory_format=torch.channels_last) if of.get("order") == "channels_last" else made


def _edges(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Values between 0 and others that are small, whole, negative zero or large."""
    values = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.5, 2.5, 1e-3, -3.0, 100.0, -1e4])
    return values[torch.randint(len(values), tuple(shape), generator=generator)]


def _mask(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Zeros, and minus infinity in places, the first of a row never."""
    masked = torch.rand(tuple(shape), generator=generator) < 0.3
    masked[..., 0] = False
    return torch.zeros(tuple(shape)).masked_fill(masked, -torch.inf)


_FILLS = {
    "ties": lambda shape, generator: torch.randn(shape, generator=generator).mul(2).round() / 2,
    "edges": _edges,
    "mask": _mask,
    "kept": lambda shape, generator: _mask(shape, generator) == 0,
    "bytes": lambda shape, generator: torch.randint(256, shape, generator=generator),
}


def called(program: Program, calls: Sequence[Sequence[Tensor]]) -> list[tuple[Tensor, ...]]:
    """Outputs of one call after the other, from the first state on."""
    with torch.no_grad():
        program.store.reset()
        return [program(*given) for given in calls]


def noisy(
    program: Program, calls: Sequence[Sequence[Tensor]], share: float
) -> Iterator[list[tuple[Tensor, ...]]]:
    """Outputs of the calls with rounding errors of `share` of the usual size after each step, a few times."""
    for seed in range(3):
        with _noise(program, share), torch.random.fork_rng():
            torch.manual_seed(seed)
            yield called(program, calls)


@contextlib.contextmanager
def _noise(program: Program, share: float) -> Iterator[None]:
    program.noise = {dtype: share * size for dtype, size in _NOISE.items()}
    try:
        with _HalfOperators(share * _NOISE[torch.float16]):
            yield
    finally:
        program.noise = {}


class _HalfOperators(TorchDispatchMode):
    """Each operator on halves is off by this share too: of a difference of what is rounded nothing may be left."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self._share = share

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        half = isinstance(made, Tensor) and made.dtype is torch.float16
        rounds = half and not any(each.alias_info for each in func._schema.returns)  # noqa: SLF001 - no public name
        return made + (self._share * made.abs() * torch.randn(made.shape).sign()).half() if rounds else made
