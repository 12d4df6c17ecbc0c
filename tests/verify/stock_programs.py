"""Small modules with quantized weights, from which the stock files are made: each builder gives (module, inputs)."""

from collections.abc import Callable
from typing import Any

import torch
from by_channel import ByChannel
from torch import nn
from torchao.quantization import Int8DynamicActivationIntxWeightConfig, IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerGroup
from torchao.utils import unwrap_tensor_subclass

from vkfuse.program.operators import register_operators


class Lookup(nn.Module):
    """An embedding."""

    def __init__(self, rows: int = 100, columns: int = 64) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, columns)

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        return self.table(indices)


class Tied(nn.Module):
    """An embedding and a head of the same values."""

    def __init__(self, rows: int = 128, columns: int = 64) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, columns)
        self.head = nn.Linear(columns, rows, bias=False)
        self.head.weight = nn.Parameter(self.table.weight.detach().clone())

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(indices))


class Dequantized(nn.Module):
    """A weight of 4-bit values, dequantized in the graph and handed to `use`."""

    def __init__(self, rows: int, columns: int, group: int, use: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.group, self.use = group, use
        self.register_buffer("values", torch.randint(-8, 8, (rows, columns), dtype=torch.int8))
        self.register_buffer("scales", torch.rand(rows, columns // group) * 0.1 + 0.01)
        self.register_buffer("zeros", torch.zeros(rows, columns // group, dtype=torch.int8))

    def dequantized(
        self, scales: torch.Tensor, zeros: torch.Tensor, values: torch.Tensor | None = None
    ) -> torch.Tensor:
        return torch.ops.torchao.dequantize_affine(
            self.values if values is None else values,
            [1, self.group],
            scales,
            zeros,
            torch.int8,
            -8,
            7,
            output_dtype=torch.float32,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.use(x, self.dequantized(self.scales, self.zeros), self)


def _quantized(module: nn.Module, config: Any, kind: type[nn.Module]) -> nn.Module:
    quantize_(module, config, lambda part, _name: isinstance(part, kind))
    return module


def int4(granularity: Any, **options: Any) -> IntxWeightOnlyConfig:
    """4-bit weights."""
    return IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=granularity, **options)


def lookup(shape: tuple[int, ...], config: Any = None, **size: int) -> Callable[[], Any]:
    """Build an embedding and indices of `shape`."""

    def build() -> tuple[nn.Module, tuple[Any, ...]]:
        module = _quantized(Lookup(**size), config or int4(PerGroup(32)), nn.Embedding)
        return module, (torch.randint(0, module.table.num_embeddings, shape),)

    return build


def linear(shape: tuple[int, ...], config: Any = None, *, bias: bool = False) -> Callable[[], Any]:
    """Build a linear and an activation of `shape`."""

    def build() -> tuple[nn.Module, tuple[Any, ...]]:
        module = nn.Sequential(nn.Linear(shape[-1], 64, bias=bias))
        return _quantized(module, config or int4(PerGroup(32)), nn.Linear), (torch.randn(shape),)

    return build


def by_channel(shape: tuple[int, ...], *weight: int, **options: Any) -> Callable[[], Any]:
    """Build a linear or a convolution with a scale a channel, behind a product."""
    return lambda: (nn.Sequential(Doubled(), ByChannel(*weight, **options)), (torch.randn(shape),))


class Doubled(nn.Module):
    """Twice its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def dynamic_linear(shape: tuple[int, ...]) -> Callable[[], Any]:
    """Build a linear with 4-bit weights on dynamic 8-bit activations."""
    config = Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=PerGroup(32))
    return linear(shape, config)


def tied_apart() -> tuple[nn.Module, tuple[Any, ...]]:
    """Lookup and head of the same values, each quantized by itself."""
    module = Tied()
    quantize_(module, int4(PerGroup(32)), lambda part, _: isinstance(part, nn.Embedding | nn.Linear))
    return unwrap_tensor_subclass(module), (torch.randint(0, 128, (1, 8)),)


class _HeadFirst(nn.Module):
    """A head, then a lookup in its very weight; as many rows as groups, so that transposed scales fit."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2048, 64, bias=False)
        self.table = nn.Embedding(64, 2048)

    def forward(self, x: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.head(x), self.table(indices)


def tied_head_first() -> tuple[nn.Module, tuple[Any, ...]]:
    """Build a head and a lookup in its table, of which the head is fused first."""
    module = _HeadFirst()
    quantize_(module, int4(PerGroup(32)), lambda part, _: isinstance(part, nn.Embedding | nn.Linear))
    module = unwrap_tensor_subclass(module)
    module.table.parametrizations.weight = module.head.parametrizations.weight
    return module, (torch.randn(1, 2048), torch.randint(0, 64, (1, 8)))


def half(module: Callable[[], nn.Module], inputs: Callable[[], torch.Tensor]) -> Callable[[], Any]:
    """Build a float16 module with 4-bit weights."""

    def build() -> tuple[nn.Module, tuple[Any, ...]]:
        part = module().half()
        quantize_(part, int4(PerGroup(32)), lambda each, _: isinstance(each, nn.Embedding | nn.Linear))
        return part, (inputs(),)

    return build


def dequantized(
    use: Callable[..., torch.Tensor],
    inputs: Callable[[], torch.Tensor],
    change: Callable[[Dequantized], None] = lambda _: None,
    size: tuple[int, int, int] = (64, 64, 32),
) -> Callable[[], Any]:
    """Build a table that `use` reads, `change`d before; `size` is rows, columns and group."""

    def build() -> tuple[nn.Module, tuple[Any, ...]]:
        module = Dequantized(*size, use)
        change(module)
        return module, (inputs(),)

    return build


def as_linear(x: torch.Tensor, weight: torch.Tensor, _: Dequantized) -> torch.Tensor:
    """X @ W.T."""
    return nn.functional.linear(x, weight)


def as_matmul(x: torch.Tensor, weight: torch.Tensor, _: Dequantized) -> torch.Tensor:
    """X @ W."""
    return x @ weight


def as_lookup(x: torch.Tensor, weight: torch.Tensor, _: Dequantized) -> torch.Tensor:
    """Rows of W."""
    return nn.functional.embedding(x, weight)


def doubled_scales(x: torch.Tensor, _: torch.Tensor, module: Dequantized) -> torch.Tensor:
    """Rows of a table whose scales are doubled in the graph."""
    return nn.functional.embedding(x, module.dequantized(module.scales * 2, module.zeros))


def zeros_plus_3(x: torch.Tensor, _: torch.Tensor, module: Dequantized) -> torch.Tensor:
    """Rows of a table whose zero points are moved in the graph."""
    return nn.functional.embedding(x, module.dequantized(module.scales, module.zeros + 3))


def zeros_plus_3_linear(x: torch.Tensor, _: torch.Tensor, module: Dequantized) -> torch.Tensor:
    """A product with a table whose zero points are moved in the graph."""
    return nn.functional.linear(x, module.dequantized(module.scales, module.zeros + 3))


def values_minus_4(x: torch.Tensor, _: torch.Tensor, module: Dequantized) -> torch.Tensor:
    """Rows of a table whose values are moved in the graph, as 32-bit integers."""
    values = (module.values.to(torch.int32) - 4).to(torch.int8)
    return nn.functional.embedding(x, module.dequantized(module.scales, module.zeros, values))


def bytes_minus_4(x: torch.Tensor, _: torch.Tensor, module: Dequantized) -> torch.Tensor:
    """Rows of a table whose values are moved in the graph, as bytes."""
    return nn.functional.embedding(x, module.dequantized(module.scales, module.zeros, module.values - 4))


def own_zero_point(x: torch.Tensor, weight: torch.Tensor, module: Dequantized) -> torch.Tensor:
    """Two lookups in the same values with zero points of their own."""
    other = module.dequantized(module.scales, module.other_zeros)
    return nn.functional.embedding(x, weight) + nn.functional.embedding(x, other)


def zero_points(module: Dequantized) -> None:
    """Give the table zero points."""
    module.zeros = torch.randint(-3, 4, module.zeros.shape, dtype=torch.int8)


def other_zeros(module: Dequantized) -> None:
    """Add a second set of zero points."""
    module.register_buffer("other_zeros", torch.full_like(module.zeros, 3))


def wide_zeros(module: Dequantized) -> None:
    """Store the zero points in 32 bits."""
    module.zeros = module.zeros.to(torch.int32)


def view_of_values(module: Dequantized) -> None:
    """Let the values be the second half of another tensor."""
    module.values = torch.cat([torch.zeros_like(module.values), module.values])[module.values.shape[0] :]


def view_of_scales(module: Dequantized) -> None:
    """Let the scales be the second half of another tensor."""
    rows = module.scales.shape[0]
    parent = torch.cat([torch.rand(rows, module.scales.shape[1]), module.scales])
    module.scales = parent[rows:]


def rows() -> torch.Tensor:
    """Row numbers."""
    return torch.randint(0, 64, (1, 8))


def matrix() -> torch.Tensor:
    """An activation."""
    return torch.randn(8, 64)


class FloatView(nn.Module):
    """A float weight that is the second half of another tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(128, 64)[64:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight)


class _FloatHead(nn.Module):
    """An embedding that is quantized and a head that shared its weight and is not."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(128, 64)
        self.head = nn.Linear(64, 128, bias=False)
        self.head.weight = self.table.weight

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(indices))


def float_head() -> tuple[nn.Module, tuple[Any, ...]]:
    """Build a quantized embedding with a float head of the same values."""
    module = _quantized(_FloatHead(), int4(PerGroup(32)), nn.Embedding)
    return module, (torch.randint(0, 128, (1, 8)),)


class PerChannel(nn.Module):
    """A table as PT2E's convert leaves it, read by a lookup or a linear."""

    def __init__(self, use: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.use = use
        self.register_buffer("values", torch.randint(-128, 128, (64, 128), dtype=torch.int8))
        self.register_buffer("scales", torch.rand(64) + 0.1)
        self.register_buffer("points", torch.zeros(64, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = torch.ops.quantized_decomposed.dequantize_per_channel(
            self.values, self.scales, self.points, 0, -128, 127, torch.int8
        )
        return self.use(x, weight)


class _Function(nn.Module):
    """`function` of the inputs, and of a weight where one is wanted."""

    def __init__(self, function: Callable[..., torch.Tensor], *weight: int) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.randn(weight)) if weight else None

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.function(*inputs) if self.weight is None else self.function(*inputs, self.weight)


def of(function: Callable[..., torch.Tensor], *inputs: torch.Tensor, weight: tuple[int, ...] = ()) -> Any:
    """Build `function` of these inputs."""
    return lambda: (_Function(function, *weight), inputs)


def channels_last(function: Callable[..., torch.Tensor], *weight: int) -> Callable[[], Any]:
    """Build `function` of a channels_last image."""

    def build() -> tuple[nn.Module, tuple[Any, ...]]:
        image = torch.randn(1, 3, 6, 5).to(memory_format=torch.channels_last)
        return _Function(function, *weight), (image,)

    return build


class PickColumns(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("columns", torch.tensor([3, 1, 2]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 2)[:, self.columns]


class Attention(nn.Module):
    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


class OwnCaches(nn.Module):
    """Two tokens [1, 2, 16] of one head at a position, over two caches that start with rows of `value`."""

    def __init__(self, value: float) -> None:
        super().__init__()
        register_operators()
        for name in ("keys", "values"):
            self.register_buffer(name, torch.full((1, 16, 1, 16), value))

    def forward(self, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        at, x = start.item(), x.unsqueeze(2)
        torch._check(at >= 0)
        torch._check(at <= 14)
        torch.ops.llama.update_cache(x * 2, self.keys, at)
        torch.ops.llama.update_cache(x - 1, self.values, at)
        return torch.ops.llama.custom_sdpa(x, self.keys, self.values, at, None, 0.0, True).flatten(2)


class ScalesGiven(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("values", torch.randint(-8, 8, (64, 64), dtype=torch.int8))
        self.register_buffer("zeros", torch.zeros(64, 2, dtype=torch.int8))

    def forward(self, indices: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        table = torch.ops.torchao.dequantize_affine(
            self.values, [1, 32], scales, self.zeros, torch.int8, -8, 7, output_dtype=torch.float32
        )
        return nn.functional.embedding(indices, table)
