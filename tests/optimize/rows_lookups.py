"""Lookups in quantized tables: what the installed ExecuTorch makes wrong, unloadable or not at all."""

from typing import Any

import torch
from programs import ASYMMETRIC, BOTH, Build, Lookup, dequantized, export, indices, lookup, quantize
from torch import nn
from torch.export import ExportedProgram
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from upstream_row import Row, Table

from vkfuse.program.operators import register_operators

FLAT = ("indices-flattened",)
HALF = Table(how=("half-scales", *FLAT))
WIDE = Table(rung="gathered", how=FLAT, reason="more-than-4-bits")
OFFSET = Table(how=("offsets-gathered", *FLAT))
NO_GROUP = Table(rung="gathered", how=FLAT, reason="group-not-multiple-of-4")
DYNAMIC = ((1, 1), (1, 16), (4, 16), (3, 5))

SHAPES = (
    Row(name="one row of indices", build=lookup(7)),
    Row(name="indices [1, 7]", build=lookup(1, 7), tables=(Table(how=FLAT),)),
    Row(name="indices [2, 7]", build=lookup(2, 7), tables=(Table(how=FLAT),)),
    Row(name="indices [2, 3, 4]", build=lookup(2, 3, 4), tables=(Table(how=FLAT),)),
    Row(name="indices [2, 2, 2, 3]", build=lookup(2, 2, 2, 3), tables=(Table(how=FLAT),)),
    Row(name="an index of no dimension", build=lookup(), tables=(Table(how=FLAT),)),
    Row(name="no indices", build=lookup(0), tables=(Table(rung="gathered", reason="no-indices"),)),
    Row(name="int32 indices", build=lookup(2, 7, dtype=torch.int32), tables=(Table(how=FLAT),)),
    Row(
        name="dynamic batch and length",
        build=lambda: export(quantize(Lookup(), nn.Embedding), indices(2, 7), dynamic=BOTH),
        tables=(Table(how=FLAT),),
        lengths=DYNAMIC,
    ),
)

GRIDS = (
    *(
        Row(
            name=f"D {columns} group {group}",
            build=lookup(2, 7, columns=columns, group=group),
            tables=(table,),
        )
        for columns, group, table in (
            (64, 4, Table(how=FLAT)),
            (64, 64, Table(how=FLAT)),
            (64, None, Table(how=FLAT)),
            (48, 16, Table(how=("columns-padded", *FLAT))),
            (100, 20, Table(how=("columns-padded", *FLAT))),
            (96, 12, Table(how=FLAT)),
            (40, 8, Table(rung="gathered", how=FLAT, reason="padding-outgrows-int8")),
            (300, 100, Table(how=("columns-padded", "groups-split", *FLAT))),
            (30, 10, Table(rung="gathered", how=FLAT, reason="group-not-multiple-of-4")),
            (33, None, Table(how=("columns-padded", *FLAT))),
            (64, 2, Table(how=("scales-gathered", *FLAT))),
            (63, 3, NO_GROUP),
            (66, 6, NO_GROUP),
        )
    ),
    *(
        Row(
            name=f"{bits} bits",
            build=lookup(2, 7, weight_dtype=getattr(torch, f"int{bits}")),
            tables=(table,),
        )
        for bits, table in (
            (1, Table(how=FLAT)),
            (2, Table(how=FLAT)),
            (3, Table(how=FLAT)),
            (5, WIDE),
            (6, WIDE),
            (7, WIDE),
            (8, WIDE),
        )
    ),
    Row(
        name="8 bits per row",
        build=lookup(2, 7, weight_dtype=torch.int8, group=None),
        tables=(WIDE,),
    ),
    Row(
        name="bags",
        build=dequantized(lambda m, many: nn.functional.embedding_bag(many, m.floats(), mode="mean")),
        tables=(Table(how=FLAT),),
        bound=1e-6,
        repairs=("bag-as-lookup",),
    ),
    Row(name="asymmetric groups", build=lookup(2, 7, mapping_type=ASYMMETRIC), tables=(OFFSET,)),
    Row(name="asymmetric rows", build=lookup(2, 7, mapping_type=ASYMMETRIC, group=None), tables=(OFFSET,)),
    Row(name="float16 scales", build=lookup(2, 7, scale_dtype=torch.float16), tables=(HALF,)),
    Row(name="bfloat16 scales", build=lookup(2, 7, scale_dtype=torch.bfloat16), tables=(HALF,)),
    Row(
        name="float16 model",
        build=lambda: export(quantize(Lookup().half(), nn.Embedding), indices(2, 7)),
        tables=(HALF,),
    ),
    Row(
        name="bfloat16 model",
        build=lambda: export(quantize(Lookup().bfloat16(), nn.Embedding), indices(2, 7)),
        tables=(HALF,),
    ),
)


class _Given(nn.Module):
    """A table whose scales are an input."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("values", torch.randint(-8, 8, (64, 64), dtype=torch.int8))

    def forward(self, tokens: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        table = torch.ops.torchao.dequantize_affine(self.values, [1, 32], scales, None, torch.int8, -8, 7)
        return F.embedding(tokens, table)


class _Lifted(Lookup):
    """Scales that are a plain attribute, lifted to a constant by the export, and values in a non-persistent buffer."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.register_buffer("values", torch.randint(-8, 8, (64, 64), dtype=torch.int8), persistent=False)
        self.scales = torch.rand(64, 2)

    def table(self, tokens: torch.Tensor) -> torch.Tensor:
        table = torch.ops.torchao.dequantize_affine(
            self.values, [1, 32], self.scales, None, torch.int8, -8, 7
        )
        return F.embedding(tokens, table)


class _Packed(nn.Module):
    """The older flow: integers of `bits` in bytes, and an operator that dequantizes what it looks up."""

    def __init__(
        self, scales: torch.Tensor, *, bits: int = 4, point: float | None = 0.0, dtype: Any = torch.float32
    ) -> None:
        super().__init__()
        self.bits, self.dtype = bits, dtype
        self.lookup = getattr(torch.ops.quantized_decomposed, _PACKETS[bits])
        stored = torch.randint(0, 256, (64, 8 * bits), dtype=torch.uint8)
        self.register_buffer("values", stored.view(torch.int8) if bits == 8 else stored)
        self.register_buffer("scales", scales)
        self.register_buffer("points", None if point is None else torch.full_like(scales, point))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        half = 1 << (self.bits - 1)
        given = (self.values, self.scales, self.points, -half, half - 1, tokens)
        return self.lookup(*given) if self.dtype is None else self.lookup(*given, dtype=self.dtype)


_PACKETS = {2: "embedding_2bit", 4: "embedding_4bit", 8: "embedding_byte"}


def _packed(scales: torch.Tensor, **options: Any) -> Build:
    def build() -> ExportedProgram:
        register_operators()
        return export(_Packed(scales, **options), indices(2, 7, rows=64))

    return build


def _keywords(module, x):
    table = torch.ops.torchao.dequantize_affine(
        module.values, [1, 32], module.scales, module.points, torch.int8, quant_min=-8, quant_max=7
    )
    return F.embedding(x, table)


def _bucketed(module, x):
    edges = torch.linspace(-2, 2, 31)
    first, second = torch.bucketize(x, edges), torch.searchsorted(edges, x, side="right")
    return F.embedding(first + second, module.floats())


def _some_floats():
    """Values on boundaries, between and beyond them, and none."""
    return torch.tensor([[-2.0, 2.0, 0.0, 0.3], [-5.0, torch.inf, -torch.inf, torch.nan]])


def _rows_16_to_48(module, x):
    part = torch.ops.torchao.dequantize_affine(
        module.values[16:48], [1, 32], module.scales[16:48], module.points[16:48], torch.int8, -8, 7
    )
    return F.embedding(x, part)


EXPRESSIONS = (
    Row(
        name="scales doubled on the way",
        build=dequantized(lambda m, x: F.embedding(x, m.floats(scales=m.scales * 2))),
        tables=(Table(how=FLAT),),
    ),
    Row(
        name="zero point moved on the way",
        build=dequantized(lambda m, x: F.embedding(x, m.floats(points=m.points + 3))),
        tables=(OFFSET,),
    ),
    Row(
        name="values moved on the way",
        build=dequantized(lambda m, x: F.embedding(x, m.floats(values=torch.clamp(m.values - 4, -8, 7)))),
        tables=(Table(how=FLAT),),
    ),
    Row(
        name="table doubled after it is dequantized",
        build=dequantized(lambda m, x: F.embedding(x, m.floats() * 2)),
        tables=(Table(how=("grid-found", *FLAT)),),
    ),
    Row(
        name="second lookup with its own zero point",
        build=dequantized(
            lambda m, x: F.embedding(x, m.floats()) + F.embedding(x, m.floats(points=m.points + 1))
        ),
        tables=(Table(how=(*FLAT, "offsets-gathered")),),
    ),
    Row(
        name="two lookups of one table",
        build=dequantized(lambda m, x: F.embedding(x, m.floats()) + F.embedding(x.flip(0), m.floats())),
        tables=(Table(how=FLAT),),
    ),
    Row(
        name="values and scales that are views with an offset",
        build=dequantized(_rows_16_to_48, lambda: indices(2, 7, rows=32)),
        tables=(Table(how=FLAT),),
    ),
    Row(name="quant_min and quant_max by name", build=dequantized(_keywords), tables=(Table(how=FLAT),)),
    Row(
        name="a non-persistent buffer and a lifted constant",
        build=lambda: export(_Lifted(), indices(2, 7, rows=64)),
        tables=(Table(how=FLAT),),
    ),
    Row(
        name="scales as an input",
        build=lambda: export(_Given(), indices(2, 7, rows=64), torch.rand(64, 2)),
        tables=(),
        repairs=("affine-decomposed",),
    ),
    *(
        Row(name=name, build=_packed(torch.rand(shape) + 0.1, **options), tables=(table,))
        for name, shape, options, table in (
            ("embedding_4bit in groups", (64, 2), {}, Table(how=FLAT)),
            ("embedding_4bit per channel, scales of one dimension", (64,), {}, Table(how=FLAT)),
            ("embedding_4bit, a zero point out of reach", (64, 2), {"point": 3.0}, OFFSET),
            ("embedding_2bit", (64, 2), {"bits": 2, "dtype": None, "point": None}, Table(how=FLAT)),
            (
                "embedding_2bit per channel, zero points",
                (64,),
                {"bits": 2, "point": -1.0},
                Table(how=("zero-points-folded", *FLAT)),
            ),
            ("embedding_byte", (64, 2), {"bits": 8, "dtype": None, "point": None}, WIDE),
            ("embedding_byte, zero points", (64,), {"bits": 8, "point": 7.0}, WIDE),
            (
                "embedding_byte, zero points that are no integers",
                (64, 2),
                {"bits": 8, "point": 0.5},
                Table(rung="gathered", how=FLAT, reason="zero-point-not-integer"),
            ),
            ("embedding_byte to half", (64, 2), {"bits": 8, "dtype": torch.float16}, WIDE),
        )
    ),
    Row(
        name="a float table renormalized by max_norm",
        build=lambda: export(quantize(Lookup(max_norm=1.0), nn.Embedding), indices(2, 7)),
        tables=(Table(rung="folded", reason="not-exact"),),
        repairs=("renormalized",),
    ),
)


def _matrices(module, x):
    """Tables of matrices: in groups of half a row, of whole matrices of bytes, and of floats."""
    whole, scales = module.values.view(64, 2, 32), module.scales
    groups = torch.ops.torchao.dequantize_affine(
        whole, [1, 1, 16], scales[:, :, None].repeat(1, 1, 2), None, torch.int8, -8, 7
    )
    numbers = (whole * 16 + 3, scales[:, 0], module.points[:, 0].long(), 0, -128, 127, torch.int8)
    whole_bytes = torch.ops.quantized_decomposed.dequantize_per_channel(*numbers)
    floats = whole.flip(0) * scales[:, :, None] * 4
    return (groups[x - 32] * 2 + whole_bytes[x] + torch.index_select(floats, 0, x[0])).sum(-2)


OPERATORS = (
    Row(
        name="tables of matrices",
        build=dequantized(_matrices),
        tables=(
            Table(how=(*FLAT, "indices-wrapped")),
            Table(rung="gathered", how=(*FLAT, "indices-wrapped"), reason="more-than-4-bits"),
            Table(how=("grid-found",)),
        ),
        bound=1e-6,
    ),
    Row(
        name="gathered rows, dynamic",
        build=lambda: export(
            quantize(Lookup(), nn.Embedding, weight_dtype=torch.int8), indices(2, 7), dynamic=BOTH
        ),
        tables=(WIDE,),
        lengths=DYNAMIC,
    ),
    Row(
        name="index, negative too",
        build=dequantized(lambda m, x: m.floats()[x - 32]),
        tables=(Table(how=(*FLAT, "indices-wrapped")),),
    ),
    Row(
        name="index_select",
        build=dequantized(lambda m, x: torch.index_select(m.floats(), 0, x), lambda: indices(7, rows=64)),
    ),
    Row(
        name="index_select along -2",
        build=dequantized(lambda m, x: torch.index_select(m.floats(), -2, x), lambda: indices(7, rows=64)),
    ),
    Row(
        name="gather of whole rows",
        build=dequantized(
            lambda m, x: torch.gather(m.floats(), 0, x[:, None].expand(-1, 64)), lambda: indices(7, rows=64)
        ),
    ),
    Row(
        name="buckets of floats",
        build=dequantized(_bucketed, _some_floats),
        tables=(Table(how=FLAT),),
        repairs=("buckets-as-counts",),
    ),
    Row(
        name="remainders of negative numbers",
        build=dequantized(
            lambda m, x: (
                F.embedding((x - 40) % 64, m.floats())
                + F.embedding(-((x - 40) % -x.new_tensor([7])), m.floats())
            )
        ),
        tables=(Table(how=FLAT),),
        repairs=("remainders-with-sign",),
    ),
    Row(
        name="known rows, negative too, and a slice of rows beside a lookup",
        build=dequantized(
            lambda m, x: F.embedding(x, m.floats()) + m.floats()[[1, -1, 3, 5, -64, 7, 9]] + m.floats()[5:12]
        ),
        tables=(
            Table(how=FLAT),
            Table(rung="folded", reason="constant-indices"),
        ),
    ),
    Row(
        name="gather",
        build=dequantized(lambda m, x: torch.gather(m.floats(), 0, x), lambda: indices(7, 64, rows=64)),
        tables=(Table(rung="folded", reason="consumer-not-fused"),),
    ),
    Row(
        name="cond",
        build=dequantized(
            lambda m, x: torch.cond(
                x.sum() > 10,
                lambda y: F.embedding(y, m.floats()),
                lambda y: F.embedding(y, m.floats()) * 2,
                (x,),
            )
        ),
        tables=(Table(rung="folded", reason="consumer-not-fused"),),
        repairs=("branch-tables-hoisted",),
    ),
)

ROWS = (*SHAPES, *GRIDS, *EXPRESSIONS, *OPERATORS)
