"""Small programs, quantized by torchao, from which the tests build what users export."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torchao.quantization import Int8DynamicActivationIntxWeightConfig, IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerAxis, PerGroup
from torchao.quantization.quant_primitives import MappingType

Build = Callable[[], ExportedProgram]
ASYMMETRIC = MappingType.ASYMMETRIC
BATCH, LENGTH = Dim("batch", min=1, max=4), Dim("length", min=1, max=16)
BOTH = ({0: BATCH, 1: LENGTH},)  # dimensions 0 and 1 of the only input


def quantize(module: nn.Module, kind: type[nn.Module], *, group: int | None = 32, **config: Any) -> nn.Module:
    """`module` with weight-only quantized layers of one kind; int4 unless said, per row where `group` is None."""
    granularity = PerAxis(0) if group is None else PerGroup(group)
    config = {"weight_dtype": torch.int4, "granularity": granularity, **config}
    quantize_(module, IntxWeightOnlyConfig(**config), lambda part, _name: isinstance(part, kind))
    return module


def quantize_dynamic(module: nn.Module, *, group: int | None = 32, bits: Any = torch.int4) -> nn.Module:
    """`module` with linears on dynamically quantized int8 activations; 8da4w unless said."""
    granularity = PerAxis(0) if group is None else PerGroup(group)
    config = Int8DynamicActivationIntxWeightConfig(weight_dtype=bits, weight_granularity=granularity)
    quantize_(module, config, lambda part, _name: isinstance(part, nn.Linear))
    return module


def export(module: nn.Module, *inputs: Any, dynamic: Any = None) -> ExportedProgram:
    """The exported program of `module` in inference."""
    return torch.export.export(module.eval(), inputs, dynamic_shapes=dynamic)


def indices(*shape: int, rows: int = 100, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """Random row numbers."""
    return torch.randint(0, rows, shape, dtype=dtype)


class Lookup(nn.Module):
    """An embedding."""

    def __init__(self, rows: int = 100, columns: int = 64, **options: Any) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, columns, **options)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.table(tokens)


class LanguageModel(nn.Module):
    """Embedding, a layer, and a head of the embedding's shape."""

    def __init__(self, rows: int = 100, columns: int = 64) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, columns)
        self.layer = nn.Linear(columns, columns)
        self.head = nn.Linear(columns, rows, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.layer(self.table(tokens))))


class HeadFirst(nn.Module):
    """A head that stands before the lookup of the same table in the graph."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, columns)
        self.head = nn.Linear(columns, rows, bias=False)

    def forward(self, hidden: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.head(hidden), self.table(tokens)


class Positions(nn.Module):
    """A float embedding and two layers of its shape, 128 x 128."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(128, 128)
        self.first, self.second = nn.Linear(128, 128), nn.Linear(128, 128)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(self.table(tokens))))


class Linear(nn.Module):
    """A linear layer."""

    def __init__(self, inputs: int = 128, outputs: int = 64) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Dequantized(nn.Module):
    """A 4-bit table [64, 64] in groups of 32, dequantized in the graph and read by `use(self, x)`."""

    def __init__(self, use: Callable[..., torch.Tensor], *, persistent: bool = True) -> None:
        super().__init__()
        self.use = use
        self.register_buffer(
            "values", torch.randint(-8, 8, (64, 64), dtype=torch.int8), persistent=persistent
        )
        self.register_buffer("scales", torch.rand(64, 2) + 0.1)
        self.register_buffer("points", torch.zeros(64, 2, dtype=torch.int8))

    def floats(self, values: Any = None, scales: Any = None, points: Any = None) -> torch.Tensor:
        """The float table, of other numbers where given."""
        return torch.ops.torchao.dequantize_affine(
            self.values if values is None else values,
            [1, 32],
            self.scales if scales is None else scales,
            self.points if points is None else points,
            torch.int8,
            -8,
            7,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.use(self, x)


def lookup(*shape: int, rows: int = 100, columns: int = 64, dtype: Any = torch.int64, **config: Any) -> Build:
    """A quantized embedding looked up with indices of `shape`."""
    return lambda: export(
        quantize(Lookup(rows, columns), nn.Embedding, **config), indices(*shape, rows=rows, dtype=dtype)
    )


def linear(*shape: int, outputs: int = 64, dynamic: Any = None, **config: Any) -> Build:
    """A weight-only quantized linear on an activation of `shape`."""
    return lambda: export(
        quantize(Linear(shape[-1], outputs), nn.Linear, **config), torch.randn(shape), dynamic=dynamic
    )


def dynamic_linear(*shape: int, dynamic: Any = None, **config: Any) -> Build:
    """A linear with 4-bit weights, or others, and dynamic int8 activations on an activation of `shape`."""
    return lambda: export(quantize_dynamic(Linear(shape[-1]), **config), torch.randn(shape), dynamic=dynamic)


def dequantized(
    use: Callable[..., torch.Tensor], make: Callable[[], torch.Tensor] | None = None, **options: Any
) -> Build:
    """A table that `use` reads, with indices [2, 7] as the input unless `make` gives another."""
    return lambda: export(Dequantized(use, **options), indices(2, 7, rows=64) if make is None else make())
