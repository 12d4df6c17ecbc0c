"""What surrounds a table in a graph: dtypes, attention, norms, operators that the runtime has not."""

import torch
from programs import (
    LanguageModel,
    Linear,
    Lookup,
    dequantized,
    dynamic_linear,
    export,
    indices,
    lookup,
    quantize,
)
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from upstream_row import Row, Table

FLAT = (Table(how=("indices-flattened",)),)
SUMS = 1e-5
HALF = 4e-3
ROUNDED = 2e-2


class _After(Lookup):
    """An embedding, and `use(rows, *more)` of what was looked up."""

    def __init__(self, use, **parts: nn.Module) -> None:
        super().__init__()
        self.use = use
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, tokens: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        return self.use(self, self.table(tokens), *more)


def _after(use, *more, **parts):
    """An exported lookup followed by `use`."""
    return lambda: export(
        quantize(_After(use, **{k: make() for k, make in parts.items()}), nn.Embedding),
        indices(2, 7),
        *(make() for make in more),
    )


def _heads(rows: torch.Tensor) -> torch.Tensor:
    return rows.view(2, 7, 2, 32).transpose(1, 2)


def _attend(rows: torch.Tensor, **options) -> torch.Tensor:
    heads = _heads(rows)
    return F.scaled_dot_product_attention(heads, heads, heads, **options)


def _grouped(_module, rows):
    heads = _heads(rows)
    one = heads[:, :1]
    return F.scaled_dot_product_attention(heads, one, one, is_causal=True, enable_gqa=True)


def _whole_model(dtype: torch.dtype):
    def build():
        module = LanguageModel(128).to(dtype)
        return export(quantize(quantize(module, nn.Embedding), nn.Linear), indices(2, 7))

    return build


class _Cache(LanguageModel):
    """A model that writes what it looked up to a buffer, and reads the buffer."""

    def __init__(self, write) -> None:
        super().__init__(128)
        self.write = write
        self.register_buffer("cache", torch.full((2, 7, 64), 0.25))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        self.write(self.cache, self.table(tokens))
        return self.head(self.cache)


def _written(write):
    """A model with a buffer that `write(buffer, rows)` changes in place; the state stays from call to call."""
    return Row(
        name=f"a buffer that {write.__name__.strip('_').replace('_', ' ')}",
        build=lambda: export(quantize(quantize(_Cache(write), nn.Embedding), nn.Linear), indices(2, 7)),
        tables=(*FLAT, Table(how=("input-flattened",))),
        bound=SUMS,
        lengths=((2, 7), (2, 7)),
    )


def _is_added_to_in_place(buffer, rows):
    buffer.add_(rows)


def _is_replaced(buffer, rows):
    buffer.copy_(rows * 2)


def _takes_columns_by_index(buffer, rows):
    buffer.index_copy_(1, torch.tensor([4, 5, 1]), rows[:, :3])


def _half_linear(factor: float):
    """A float16 linear with float32 scales, as float16 has them where `factor` is 1."""

    def build():
        module = quantize(Linear().half(), nn.Linear, scale_dtype=torch.float32)
        module.layer.weight.scale = module.layer.weight.scale * factor
        return export(module, torch.randn(2, 5, 128).half())

    return build


def _masked() -> torch.Tensor:
    """A mask that empties the last query's row."""
    mask = torch.ones(2, 1, 7, 7, dtype=torch.bool).tril()
    mask[:, :, -1] = False
    return mask


ROWS = (
    Row(
        name="attention, causal",
        build=_after(lambda _m, rows: _attend(rows, is_causal=True)),
        tables=FLAT,
        bound=SUMS,
        repairs=("attention-written-out",),
    ),
    Row(
        name="attention, boolean mask with an empty row",
        build=_after(lambda _m, rows, mask: _attend(rows, attn_mask=mask), _masked),
        tables=FLAT,
        bound=SUMS,
    ),
    Row(
        name="attention, additive mask and scale",
        build=_after(
            lambda _m, rows, mask: _attend(rows, attn_mask=mask, scale=0.5),
            lambda: torch.zeros(2, 1, 7, 7).masked_fill(~_masked(), -torch.inf),
        ),
        tables=FLAT,
        bound=SUMS,
    ),
    Row(name="attention, grouped queries", build=_after(_grouped), tables=FLAT, bound=SUMS),
    Row(
        name="RMSNorm",
        build=_after(lambda m, rows: m.norm(rows), norm=lambda: nn.RMSNorm(64)),
        tables=FLAT,
        bound=SUMS,
        repairs=("rms-norm-written-out",),
    ),
    Row(
        name="LayerNorm without a bias",
        build=_after(lambda m, rows: m.norm(rows), norm=lambda: nn.LayerNorm(64, bias=False)),
        tables=FLAT,
        bound=SUMS,
        repairs=("layer-norm-completed",),
    ),
    Row(
        name="gelu by erf",
        build=_after(lambda _m, rows: F.gelu(rows)),
        tables=FLAT,
        bound=5e-4,
    ),
    Row(
        name="a[:, idx]",
        build=_after(lambda _m, rows, columns: rows[:, columns], lambda: torch.tensor([3, 1, 2])),
        tables=FLAT,
    ),
    Row(
        name="a parameter that is an expression of constants",
        build=_after(lambda m, rows: rows * (1 + m.norm.weight), norm=lambda: nn.RMSNorm(64)),
        tables=FLAT,
        bound=SUMS,
        repairs=("constants-folded",),
    ),
    Row(
        name="a mask that no input reaches",
        build=_after(
            lambda _m, rows: rows * (torch.arange(7) > 2).float().view(1, 7, 1) + torch.arange(64.0)
        ),
        tables=FLAT,
        bound=SUMS,
        repairs=("constants-folded",),
    ),
    Row(
        name="float16 model",
        build=_whole_model(torch.float16),
        tables=(Table(how=("half-scales", "indices-flattened")), *(2 * (Table(how=("input-flattened",)),))),
        bound=HALF,
    ),
    Row(
        name="bfloat16 model",
        build=_whole_model(torch.bfloat16),
        tables=(
            Table(how=("half-scales", "indices-flattened")),
            *(2 * (Table(how=("input-flattened",)),)),
        ),
        bound=4 * HALF,
    ),
    Row(
        name="float16 activations, float32 scales",
        build=_half_linear(1.0),
        tables=(Table(how=("input-flattened",)),),
        bound=HALF,
    ),
    Row(
        name="float16 activations, float32 scales that float16 has not",
        build=_half_linear(1.0003),
        tables=(Table(how=("offsets-summed", "input-flattened")),),
        bound=HALF,
    ),
    Row(
        name="lookup decomposed before lowering",
        build=lambda: lookup(2, 7)().run_decompositions(),
        tables=FLAT,
    ),
    Row(
        name="8da4w decomposed before lowering",
        build=lambda: dynamic_linear(2, 5, 128)().run_decompositions(),
        tables=(Table(),),
        bound=ROUNDED,
    ),
    Row(
        name="a table that is an output",
        build=dequantized(lambda m, x: (m.floats()[x], m.floats())),
        tables=(
            Table(how=("indices-flattened", "indices-wrapped")),
            Table(rung="folded", reason="consumer-not-fused"),
        ),
    ),
    *map(_written, (_is_added_to_in_place, _is_replaced, _takes_columns_by_index)),
    Row(
        name="a buffer written with what float parameters compute, gradients on",
        build=lambda: export(_Cache(_is_replaced), indices(2, 7)),
        tables=(),
        bound=SUMS,
        lengths=((2, 7),),
    ),
)
