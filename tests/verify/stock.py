"""Small programs, and what the installed ExecuTorch makes of them: some right, some wrong, some not loadable.

`EXPECTED` is what ExecuTorch's own Vulkan runtime (1.5.0, on a software driver) did with each file.
"""

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from executorch.backends.vulkan import patterns as vulkan_patterns
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch import nn
from torch.export import Dim, ExportedProgram, export
from torchao.quantization import (
    Int8DynamicActivationIntxWeightConfig,
    IntxWeightOnlyConfig,
    quantize_,
)
from torchao.quantization.granularity import PerAxis, PerGroup
from torchao.utils import unwrap_tensor_subclass

Expected = Literal["right", "wrong", "not-loadable"]
_SLOW_TEMPLATES = ("rope",)  # exported anew for every program; none has rotary embeddings here


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A program and the verdict on its stock file; `operator` is to blame for a wrong or unloadable one."""

    name: str
    build: Callable[[], tuple[nn.Module, tuple[Any, ...]]]
    expected: Expected
    operator: str = ""
    dynamic: Any = None


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

    def dequantized(self, scales: torch.Tensor, zeros: torch.Tensor) -> torch.Tensor:
        return torch.ops.torchao.dequantize_affine(
            self.values, [1, self.group], scales, zeros, torch.int8, -8, 7, output_dtype=torch.float32
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.use(x, self.dequantized(self.scales, self.zeros), self)


def program_of(case: Case) -> tuple[nn.Module, tuple[Any, ...], ExportedProgram]:
    """Build and export a case, always with the same numbers."""
    torch.manual_seed(0)
    module, inputs = case.build()
    return module, inputs, export(module.eval(), inputs, dynamic_shapes=case.dynamic, strict=False)


def stock_file(exported: ExportedProgram) -> bytes:
    """Lower as `to_edge_transform_and_lower(ep, partitioner=[VulkanPartitioner()])` does."""
    kept = dict(vulkan_patterns.fusable_patterns)
    try:
        for name in kept:
            if any(slow in str(name) for slow in _SLOW_TEMPLATES):
                del vulkan_patterns.fusable_patterns[name]
        edge = to_edge_transform_and_lower(copy.deepcopy(exported), partitioner=[VulkanPartitioner()])
        stream = io.BytesIO()
        edge.to_executorch().write_to_file(stream)
    finally:
        vulkan_patterns.fusable_patterns.clear()
        vulkan_patterns.fusable_patterns.update(kept)
    return stream.getvalue()


def _quantized(module: nn.Module, config: Any, kind: type[nn.Module]) -> nn.Module:
    quantize_(module, config, lambda part, _name: isinstance(part, kind))
    return module


def _int4(granularity: Any, **options: Any) -> IntxWeightOnlyConfig:
    return IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=granularity, **options)


def _lookup(shape: tuple[int, ...], config: Any = None, **size: int) -> Callable[[], Any]:
    def build() -> tuple[nn.Module, tuple[Any, ...]]:
        module = _quantized(Lookup(**size), config or _int4(PerGroup(32)), nn.Embedding)
        return module, (torch.randint(0, module.table.num_embeddings, shape),)

    return build


def _linear(shape: tuple[int, ...], config: Any = None, *, bias: bool = False) -> Callable[[], Any]:
    def build() -> tuple[nn.Module, tuple[Any, ...]]:
        module = nn.Sequential(nn.Linear(shape[-1], 64, bias=bias))
        return _quantized(module, config or _int4(PerGroup(32)), nn.Linear), (torch.randn(shape),)

    return build


def _dynamic_linear(shape: tuple[int, ...]) -> Callable[[], Any]:
    config = Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=PerGroup(32))
    return _linear(shape, config)


def _tied_apart() -> tuple[nn.Module, tuple[Any, ...]]:
    """Lookup and head of the same values, each quantized by itself."""
    module = Tied()
    quantize_(module, _int4(PerGroup(32)), lambda part, _: isinstance(part, nn.Embedding | nn.Linear))
    return unwrap_tensor_subclass(module), (torch.randint(0, 128, (1, 8)),)


class _HeadFirst(nn.Module):
    """A head, then a lookup in its very weight; as many rows as groups, so that transposed scales fit."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2048, 64, bias=False)
        self.table = nn.Embedding(64, 2048)

    def forward(self, x: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.head(x), self.table(indices)


def _tied_head_first() -> tuple[nn.Module, tuple[Any, ...]]:
    module = _HeadFirst()
    quantize_(module, _int4(PerGroup(32)), lambda part, _: isinstance(part, nn.Embedding | nn.Linear))
    module = unwrap_tensor_subclass(module)
    module.table.parametrizations.weight = module.head.parametrizations.weight
    return module, (torch.randn(1, 2048), torch.randint(0, 64, (1, 8)))


def _half(module: Callable[[], nn.Module], inputs: Callable[[], torch.Tensor]) -> Callable[[], Any]:
    def build() -> tuple[nn.Module, tuple[Any, ...]]:
        part = module().half()
        quantize_(part, _int4(PerGroup(32)), lambda each, _: isinstance(each, nn.Embedding | nn.Linear))
        return part, (inputs(),)

    return build


def _dequantized(
    use: Callable[..., torch.Tensor],
    inputs: Callable[[], torch.Tensor],
    change: Callable[[Dequantized], None] = lambda _: None,
    size: tuple[int, int, int] = (64, 64, 32),
) -> Callable[[], Any]:
    def build() -> tuple[nn.Module, tuple[Any, ...]]:
        module = Dequantized(*size, use)
        change(module)
        return module, (inputs(),)

    return build


def _as_linear(x: torch.Tensor, weight: torch.Tensor, _: Dequantized) -> torch.Tensor:
    return nn.functional.linear(x, weight)


def _as_matmul(x: torch.Tensor, weight: torch.Tensor, _: Dequantized) -> torch.Tensor:
    return x @ weight


def _as_lookup(x: torch.Tensor, weight: torch.Tensor, _: Dequantized) -> torch.Tensor:
    return nn.functional.embedding(x, weight)


def _doubled_scales(x: torch.Tensor, _: torch.Tensor, module: Dequantized) -> torch.Tensor:
    return nn.functional.embedding(x, module.dequantized(module.scales * 2, module.zeros))


def _own_zero_point(x: torch.Tensor, weight: torch.Tensor, module: Dequantized) -> torch.Tensor:
    other = module.dequantized(module.scales, module.other_zeros)
    return nn.functional.embedding(x, weight) + nn.functional.embedding(x, other)


def _zero_points(module: Dequantized) -> None:
    module.zeros = torch.randint(-3, 4, module.zeros.shape, dtype=torch.int8)


def _other_zeros(module: Dequantized) -> None:
    module.register_buffer("other_zeros", torch.full_like(module.zeros, 3))


def _view_of_scales(module: Dequantized) -> None:
    rows = module.scales.shape[0]
    parent = torch.cat([torch.rand(rows, module.scales.shape[1]), module.scales])
    module.scales = parent[rows:]


def _rows() -> torch.Tensor:
    return torch.randint(0, 64, (1, 8))


def _matrix() -> torch.Tensor:
    return torch.randn(8, 64)


class _PickColumns(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("columns", torch.tensor([3, 1, 2]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 2)[:, self.columns]


class _Attention(nn.Module):
    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


class _ScalesGiven(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("values", torch.randint(-8, 8, (64, 64), dtype=torch.int8))
        self.register_buffer("zeros", torch.zeros(64, 2, dtype=torch.int8))

    def forward(self, indices: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        table = torch.ops.torchao.dequantize_affine(
            self.values, [1, 32], scales, self.zeros, torch.int8, -8, 7, output_dtype=torch.float32
        )
        return nn.functional.embedding(indices, table)


LOOKUP, LINEAR = "et_vk.embedding_q4gsw.default", "et_vk.linear_q4gsw.default"
QPARAMS, DEQUANTIZE = "torchao.choose_qparams_affine.default", "torchao.dequantize_affine.default"
CASES: tuple[Case, ...] = (
    Case(name="lookup", build=_lookup((1, 8)), expected="right"),
    Case(
        name="lookup-dynamic",
        build=_lookup((1, 8)),
        expected="right",
        dynamic=({1: Dim("length", min=1, max=32)},),
    ),
    Case(name="lookup-two-rows", build=_lookup((2, 8)), expected="wrong", operator=LOOKUP),
    Case(name="lookup-3d", build=_lookup((2, 3, 8)), expected="wrong", operator=LOOKUP),
    Case(name="lookup-4d", build=_lookup((2, 2, 3, 8)), expected="not-loadable", operator=LOOKUP),
    Case(name="lookup-group-2", build=_lookup((1, 8), _int4(PerGroup(2))), expected="wrong", operator=LOOKUP),
    Case(
        name="lookup-group-6",
        build=_lookup((1, 8), _int4(PerGroup(6)), columns=96),
        expected="wrong",
        operator=LOOKUP,
    ),
    Case(
        name="lookup-int8",
        build=_lookup((1, 8), IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))),
        expected="not-loadable",
        operator=DEQUANTIZE,
    ),
    Case(
        name="lookup-40-columns",
        build=_lookup((1, 8), _int4(PerGroup(8)), columns=40),
        expected="not-loadable",
        operator=DEQUANTIZE,
    ),
    Case(name="linear-one-matrix", build=_linear((1, 16, 128)), expected="right"),
    Case(name="linear-rows", build=_linear((32, 128), bias=True), expected="right"),
    Case(name="linear-one-row", build=_linear((1, 128)), expected="right"),
    Case(name="linear-two-matrices", build=_linear((2, 16, 128)), expected="wrong", operator=LINEAR),
    Case(name="linear-4d", build=_linear((2, 3, 16, 128)), expected="wrong", operator=LINEAR),
    Case(name="8da4w", build=_dynamic_linear((1, 16, 128)), expected="right"),
    Case(name="8da4w-one-row", build=_dynamic_linear((1, 1, 128)), expected="right"),
    Case(
        name="8da4w-two-matrices",
        build=_dynamic_linear((2, 16, 128)),
        expected="not-loadable",
        operator=QPARAMS,
    ),
    Case(name="tied-apart", build=_tied_apart, expected="right"),
    Case(name="tied-head-first", build=_tied_head_first, expected="wrong", operator=LOOKUP),
    Case(name="half-lookup", build=_half(Lookup, lambda: torch.randint(0, 100, (1, 8))), expected="right"),
    Case(
        name="half-linear",
        build=_half(
            lambda: nn.Sequential(nn.Linear(128, 64, bias=False)), lambda: torch.randn(16, 128).half()
        ),
        expected="right",
    ),
    Case(
        name="index-select",
        build=_dequantized(lambda x, weight, _: weight.index_select(0, x[0]), _rows),
        expected="not-loadable",
        operator=DEQUANTIZE,
    ),
    Case(
        name="zero-points",
        build=_dequantized(_as_linear, _matrix, _zero_points),
        expected="wrong",
        operator=LINEAR,
    ),
    Case(name="square-matmul", build=_dequantized(_as_matmul, _matrix), expected="wrong", operator=LINEAR),
    Case(
        name="doubled-scales", build=_dequantized(_doubled_scales, _rows), expected="wrong", operator=LOOKUP
    ),
    Case(
        name="own-zero-point",
        build=_dequantized(_own_zero_point, _rows, _other_zeros),
        expected="wrong",
        operator=LOOKUP,
    ),
    Case(
        name="view-of-scales",
        build=_dequantized(_as_lookup, _rows, _view_of_scales),
        expected="wrong",
        operator=LOOKUP,
    ),
    Case(
        name="scales-given",
        build=lambda: (_ScalesGiven(), (_rows(), torch.rand(64, 2))),
        expected="not-loadable",
        operator=LOOKUP,
    ),
    Case(
        name="8da8w",
        build=_linear(
            (1, 16, 128),
            Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int8, weight_granularity=PerAxis(0)),
        ),
        expected="not-loadable",
    ),
    Case(
        name="attention",
        build=lambda: (_Attention(), tuple(torch.randn(1, 2, 8, 16) for _ in range(3))),
        expected="not-loadable",
        operator="aten.logical_not.default",
    ),
    Case(
        name="columns-by-index", build=lambda: (_PickColumns(), (torch.randn(2, 5),)), expected="not-loadable"
    ),
    Case(name="rms-norm", build=lambda: (nn.RMSNorm(64), (torch.randn(2, 8, 64),)), expected="right"),
    Case(name="gelu", build=lambda: (nn.GELU(), (torch.randn(2, 64),)), expected="right"),
    Case(
        name="float-linears",
        build=lambda: (
            nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 33)),
            (torch.randn(2, 5, 64),),
        ),
        expected="right",
    ),
)
