"""Quantized linears, and heads tied to an embedding in every way."""

import torch
from programs import (
    ASYMMETRIC,
    BOTH,
    Build,
    HeadFirst,
    LanguageModel,
    dequantized,
    dynamic_linear,
    export,
    indices,
    linear,
    quantize,
    quantize_dynamic,
)
from torch import nn
from torch.export import ExportedProgram
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_
from torchao.utils import unwrap_tensor_subclass
from upstream_row import Row, Table

FLAT = ("input-flattened",)
SUMS = 1e-5  # products summed in another order
ROUNDED = 2e-2  # an activation that rounds to its neighbour, of 256 steps
DYNAMIC = ((1, 1, 128), (1, 16, 128), (4, 16, 128), (3, 5, 128))
NO_4 = "inputs-not-multiple-of-4"


def _fused(*how: str) -> tuple[Table, ...]:
    return (Table(how=how),)


def _bytes(*how: str) -> tuple[Table, ...]:
    return (Table(rung="q8", how=how, reason="more-than-4-bits"),)


def _folded(reason: str) -> tuple[Table, ...]:
    return (Table(rung="folded", reason=reason),)


LINEARS = (
    *(
        Row(
            name=f"linear on {list(shape)}",
            build=linear(*shape),
            tables=_fused(*(() if len(shape) == 2 else FLAT)),
            bound=SUMS,
        )
        for shape in ((32, 128), (1, 16, 128), (2, 16, 128), (2, 3, 16, 128), (1, 128), (128,))
    ),
    Row(
        name="linear, dynamic",
        build=linear(2, 16, 128, dynamic=BOTH),
        tables=_fused(*FLAT),
        bound=SUMS,
        lengths=DYNAMIC,
    ),
    Row(
        name="1003 outputs",
        build=linear(2, 5, 128, outputs=1003),
        tables=_fused("rows-padded", *FLAT),
        bound=SUMS,
    ),
    Row(
        name="127 outputs",
        build=linear(2, 5, 128, outputs=127),
        tables=_fused("rows-padded", *FLAT),
        bound=SUMS,
    ),
    Row(
        name="300 inputs in groups of 100",
        build=linear(2, 5, 300, group=100),
        tables=_fused("columns-padded", *FLAT),
        bound=SUMS,
    ),
    Row(
        name="36 inputs in groups of 12",
        build=linear(2, 5, 36, group=12),
        tables=_fused("columns-padded", *FLAT),
        bound=SUMS,
    ),
    Row(
        name="96 inputs in groups of 6",
        build=linear(2, 5, 96, group=6),
        tables=_folded("group-not-multiple-of-4"),
        bound=SUMS,
    ),
    Row(name="62 inputs", build=linear(2, 5, 62, group=31), tables=_folded(NO_4), bound=SUMS),
    Row(
        name="asymmetric linear",
        build=linear(2, 5, 128, mapping_type=ASYMMETRIC),
        tables=_fused("offsets-summed", *FLAT),
        bound=SUMS,
    ),
    Row(
        name="8-bit linear in groups",
        build=linear(2, 5, 128, weight_dtype=torch.int8),
        tables=_bytes("bytes-split", "offsets-summed", *FLAT),
        bound=SUMS,
    ),
    Row(name="no rows", build=linear(0, 64), tables=_folded("no-rows")),
    Row(
        name="zero points that fold into the values",
        build=dequantized(
            lambda m, x: x @ m.floats(values=torch.clamp(m.values, -5, 7), points=m.points + 1).t(),
            lambda: torch.randn(5, 64),
        ),
        tables=_fused("zero-points-folded"),
        bound=SUMS,
    ),
    Row(
        name="x @ W, square",
        build=dequantized(lambda m, x: x @ m.floats(), lambda: torch.randn(5, 64)),
        tables=_folded("not-exact"),
        bound=SUMS,
    ),
    Row(
        name="x @ W, wider than high",
        build=dequantized(lambda m, x: x @ m.floats()[:40], lambda: torch.randn(5, 40)),
        tables=_folded("table-not-readable"),
        bound=SUMS,
    ),
    Row(
        name="x @ W transposed",
        build=dequantized(lambda m, x: x @ m.floats().t(), lambda: torch.randn(5, 64)),
        bound=SUMS,
    ),
    Row(
        name="addmm",
        build=dequantized(
            lambda m, x: torch.addmm(torch.ones(64), x, m.floats().t()), lambda: torch.randn(5, 64)
        ),
        bound=SUMS,
    ),
)

BYTES = (
    *(
        Row(
            name=f"8-bit linear on {list(shape)}",
            build=linear(*shape, weight_dtype=torch.int8, group=None),
            tables=_bytes(*(() if len(shape) == 2 else FLAT)),
            bound=SUMS,
        )
        for shape in ((32, 128), (2, 16, 128), (2, 3, 16, 36), (1, 128), (128,))
    ),
    Row(
        name="8-bit linear, dynamic",
        build=linear(2, 16, 128, dynamic=BOTH, weight_dtype=torch.int8, group=None),
        tables=_bytes(*FLAT),
        bound=SUMS,
        lengths=DYNAMIC,
    ),
    Row(
        name="8-bit linear, 61 outputs",
        build=linear(5, 128, outputs=61, weight_dtype=torch.int8, group=None),
        tables=_bytes("rows-padded"),
        bound=SUMS,
    ),
    Row(
        name="6-bit linear",
        build=linear(5, 128, weight_dtype=torch.int6, group=None),
        tables=_bytes(),
        bound=SUMS,
    ),
    Row(
        name="asymmetric linear, one scale a row",
        build=linear(5, 128, mapping_type=ASYMMETRIC, group=None),
        tables=_fused("offsets-summed"),
        bound=SUMS,
    ),
    Row(
        name="8-bit weights on dynamic 8-bit activations",
        build=dynamic_linear(2, 5, 128, bits=torch.int8, group=None),
        tables=_bytes(*FLAT),
        bound=ROUNDED,
        repairs=("rows-quantized-in-floats",),
    ),
)

PLANES = (
    Row(
        name="8-bit linear in groups, dynamic",
        build=linear(2, 16, 128, dynamic=BOTH, weight_dtype=torch.int8, group=16),
        tables=_bytes("bytes-split", "offsets-summed", *FLAT),
        bound=SUMS,
        lengths=DYNAMIC,
    ),
    Row(
        name="asymmetric 8-bit linear in groups, 61 outputs",
        build=linear(1, 96, outputs=61, weight_dtype=torch.int8, mapping_type=ASYMMETRIC),
        tables=_bytes("rows-padded", "bytes-split", "offsets-summed"),
        bound=SUMS,
    ),
    Row(
        name="6-bit weights in groups on dynamic 8-bit activations",
        build=dynamic_linear(5, 128, bits=torch.int6),
        tables=_bytes("bytes-split", "offsets-summed"),
        bound=ROUNDED,
    ),
)

DYNAMIC_ACTIVATIONS = (
    *(
        Row(
            name=f"8da4w on {list(shape)}",
            build=dynamic_linear(*shape),
            tables=_fused(*(() if len(shape) == 2 else FLAT)),
            bound=ROUNDED,
        )
        for shape in ((32, 128), (1, 16, 128), (2, 16, 128), (2, 3, 16, 128), (1, 128), (128,))
    ),
    Row(
        name="8da4w, dynamic",
        build=dynamic_linear(2, 16, 128, dynamic=BOTH),
        tables=_fused(*FLAT),
        bound=ROUNDED,
        lengths=DYNAMIC,
    ),
)


class _Either(nn.Module):
    """Keys that are computed in one call and read in others, as in Whisper's cross attention."""

    def __init__(self) -> None:
        super().__init__()
        self.keys, self.norm = nn.Linear(128, 64), nn.LayerNorm(128)

    def forward(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        keys = torch.cond(x.sum() > 0, self._computed, lambda _, known: known.clone(), (x, known))
        return keys * 2

    def _computed(self, x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return self.keys(x) + self.keys(self.norm(x))


def _condition():
    module = quantize_dynamic(_Either())
    unwrap_tensor_subclass(module)
    return export(module, torch.randn(2, 5, 128), torch.randn(2, 5, 64))


def _int8_linear():
    module = nn.Sequential(nn.Linear(128, 64))
    quantize_(module, Int8DynamicActivationInt8WeightConfig())
    return export(module, torch.randn(2, 5, 128))


def _int8_weights():
    module = nn.Sequential(nn.Linear(128, 64))
    quantize_(module, Int8WeightOnlyConfig(version=2))
    return export(module, torch.randn(2, 5, 128))


class _PerChannel(nn.Module):
    """A linear as PT2E's convert leaves it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("values", torch.randint(-8, 8, (64, 128), dtype=torch.int8))
        self.register_buffer("scales", torch.rand(64) + 0.1)
        self.register_buffer("points", torch.zeros(64, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = torch.ops.quantized_decomposed.dequantize_per_channel(
            self.values, self.scales, self.points, 0, -8, 7, torch.int8
        )
        return nn.functional.linear(x, weight)


OTHER_FLOWS = (
    Row(
        name="8da4w in a branch",
        build=_condition,
        tables=_folded("consumer-not-fused"),
        repairs=("branch-tables-hoisted", "rows-quantized-in-floats"),
        bound=ROUNDED,
    ),
    Row(
        name="an input that is called input",
        build=lambda: export(quantize(nn.Sequential(nn.Linear(128, 64)), nn.Linear), torch.randn(2, 5, 128)),
        tables=_fused(*FLAT),
        bound=SUMS,
    ),
    Row(
        name="int8 weights on dynamic int8 activations",
        build=_int8_linear,
        tables=_bytes(*FLAT),
        bound=SUMS,
        repairs=("int-mm-as-linears", "rows-quantized-in-floats"),
    ),
    Row(
        name="int8 weights, scaled after the matmul",
        build=_int8_weights,
        tables=_bytes(),
        bound=SUMS,
    ),
    Row(
        name="PT2E dequantize_per_channel",
        build=lambda: export(_PerChannel(), torch.randn(2, 5, 128)),
        tables=_fused(*FLAT),
        bound=SUMS,
    ),
)


def _tied(
    rows: int, *kinds: str, columns: int = 64, group: int = 32, again: bool = False, first: bool = False
) -> Build:
    """A model whose head is tied to the embedding before quantization, and `again` after it.

    `kinds` of table, layer and head: "w" weight-only, "a" with dynamic activations, "" float.
    """

    def build():
        module = HeadFirst(rows, columns) if first else LanguageModel(rows, columns)
        module.head.weight = module.table.weight
        for part, kind in zip(("table", "layer", "head"), kinds, strict=True):
            _quantize_part(module, part, kind, group)
        if again:
            module.head.weight = module.table.weight
        return _exported(module, rows, columns)

    return build


def _exported(module: nn.Module, rows: int, columns: int) -> ExportedProgram:
    tokens = indices(2, 7, rows=rows)
    if isinstance(module, HeadFirst):
        return export(module, torch.randn(2, 5, columns), tokens)
    return export(module, tokens)


def _unwrapped(rows: int) -> Build:
    """Tied again after quantization, then without tensor subclasses."""

    def build():
        module = LanguageModel(rows)
        quantize(quantize(module, nn.Embedding), nn.Linear)
        module.head.weight = module.table.weight
        return _exported(unwrap_tensor_subclass(module), rows, 64)

    return build


def _copied() -> Build:
    """Two tables of the same values in storages of their own."""

    def build():
        module = LanguageModel(128)
        module.head.weight = nn.Parameter(module.table.weight.detach().clone())
        return _exported(quantize(quantize(module, nn.Embedding), nn.Linear), 128, 64)

    return build


def _quantize_part(module: nn.Module, part: str, kind: str, group: int) -> None:
    holder = nn.ModuleDict({part: getattr(module, part, None)})
    if kind == "a":
        quantize_dynamic(holder, group=group)
    elif kind:
        quantize(holder, type(holder[part]), group=group)


LAYER = Table(how=FLAT)
BOTH_WAYS = ("indices-flattened", "input-flattened")
PADDED = ("rows-padded", *BOTH_WAYS)
SHARED = ("rows-padded", "scales-shared", *BOTH_WAYS)
TIED = (
    Row(
        name="tied after quantize_",
        build=_tied(128, "w", "w", "", again=True),
        tables=(Table(how=BOTH_WAYS), LAYER),
        bound=SUMS,
    ),
    Row(
        name="tied after quantize_, 100 rows",
        build=_tied(100, "w", "w", "", again=True),
        tables=(Table(how=PADDED), LAYER),
        bound=SUMS,
    ),
    Row(
        name="tied after quantize_, 1003 rows",
        build=_tied(1003, "w", "w", "", again=True),
        tables=(Table(how=PADDED), LAYER),
        bound=SUMS,
    ),
    Row(
        name="tied after quantize_, 127 rows",
        build=_tied(127, "w", "w", "", again=True),
        tables=(Table(how=PADDED), LAYER),
        bound=SUMS,
    ),
    Row(
        name="tied before quantize_, own scales",
        build=_tied(100, "w", "w", "w"),
        tables=(Table(how=PADDED), LAYER),
        bound=SUMS,
    ),
    Row(
        name="tied before quantize_, own scales, 127 rows",
        build=_tied(127, "w", "w", "w"),
        tables=(Table(how=PADDED), LAYER),
        bound=SUMS,
    ),
    Row(
        name="tied after quantize_, then unwrapped",
        build=_unwrapped(100),
        tables=(Table(how=PADDED), LAYER),
        bound=SUMS,
    ),
    Row(
        name="tied, 48 columns",
        build=_tied(100, "w", "", "", columns=48, group=16, again=True),
        tables=(Table(how=("columns-padded", *PADDED)),),
        bound=SUMS,
    ),
    Row(
        name="tied, head with dynamic activations",
        build=_tied(100, "w", "a", "a"),
        tables=(Table(how=PADDED), LAYER),
        bound=ROUNDED,
    ),
    Row(
        name="tied, head with dynamic activations, 1003 rows",
        build=_tied(1003, "w", "a", "a"),
        tables=(Table(how=PADDED), LAYER),
        bound=ROUNDED,
    ),
    Row(
        name="tied, linear first, as many rows as groups",
        build=_tied(64, "w", "", "", columns=2048, again=True, first=True),
        tables=(Table(how=("input-flattened", "indices-flattened")),),
        bound=SUMS,
    ),
    Row(
        name="tied after quantize_, 20003 rows",
        build=_tied(20003, "w", "w", "", again=True),
        tables=(Table(how=SHARED), LAYER),
        bound=SUMS,
    ),
    Row(
        name="tied, head with dynamic activations, 20003 rows",
        build=_tied(20003, "w", "a", "a"),
        tables=(Table(how=SHARED), LAYER),
        bound=ROUNDED,
    ),
    Row(
        name="tied, one scale a row",
        build=_tied(100, "w", "", "", group=64, again=True),
        tables=(Table(how=SHARED),),
        bound=SUMS,
    ),
)
FLOAT_HEAD = Row(
    name="tied, head left float",
    build=_tied(100, "w", "", ""),
    tables=(Table(how=("indices-flattened",)),),
    bound=SUMS,
)

ROWS = (*LINEARS, *BYTES, *PLANES, *DYNAMIC_ACTIVATIONS, *OTHER_FLOWS, *TIED, FLOAT_HEAD)
