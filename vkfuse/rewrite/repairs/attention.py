"""``scaled_dot_product_attention`` as matmuls and a softmax in four dimensions.

ExecuTorch decomposes it into ``_safe_softmax``, whose ``logical_not`` and ``any`` no Vulkan runtime has, and repeats
grouped keys through a fifth dimension. Here grouped queries are viewed as more rows of their key head, masks become
additive, and rows that a mask empties are multiplied by zero, as the operator defines it.
Formula: softmax(q k^T * scale + mask) v, https://pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from vkfuse.rewrite.bounds import lower_bound
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand, operands
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.repairs.masks import begins, holds

aten = torch.ops.aten

ATTENTION = aten.scaled_dot_product_attention.default


@replaces(ATTENTION, code="attention-in-four-dimensions", detail="dimensions in front, of one or as one")
def attention_in_four_dimensions(
    editor: GraphEditor, node: fx.Node, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor | None:
    """Give attention without a dimension for heads, or for the batch, dimensions of one; those in front as one."""
    parts = {"query": query, "key": key, "value": value}
    ranks = {part.ndim for part in parts.values()}
    missing = 4 - ranks.pop()
    if ranks or not missing:
        return None
    if missing < 0:
        alike = len({str(part.shape[:-3]) for part in parts.values()}) == 1
        if not alike or operand(node, "attn_mask") is not None:
            return None
        flat = {name: part.reshape([-1, *editor.sizes(part)[-3:]]) for name, part in parts.items()}
        return editor.again(node, **flat).reshape(editor.sizes(node))
    for _ in range(missing):
        parts = {name: part.unsqueeze(0) for name, part in parts.items()}
    out = editor.again(node, **parts)
    for _ in range(missing):
        out = out.squeeze(0)
    return out


@replaces(ATTENTION, code="attention-written-out", detail="matmuls and a plain softmax")
def write_out_attention(
    editor: GraphEditor, node: fx.Node, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor | None:
    """Replace each attention operator that has four dimensions and no dropout.

    Shapes are [batch, heads, rows, size], keys and values with fewer heads where several query heads share a key head.
    """
    given = operands(node)
    shapes = [part.shape for part in (query, key, value)]
    if given["dropout_p"] or {*map(len, shapes)} != {4}:
        return None
    grouped = _is_grouped(*shapes)
    if given["enable_gqa"] and len({str(shape[1]) for shape in shapes}) > 1 + grouped:
        return None
    (batch, heads, rows, size), columns = editor.sizes(query), editor.sizes(key)[2]
    scaled = query * (1.0 / math.sqrt(query.shape[-1]) if given["scale"] is None else float(given["scale"]))
    if grouped:
        scaled = scaled.reshape([batch, key.shape[1], -1, size])
    scores = scaled.matmul(key.transpose(-2, -1))
    if grouped:
        scores = scores.reshape([batch, heads, rows, columns])
    mask = _mask(editor, given, query.dtype)
    weights = (scores if mask is None else scores + mask.additive).softmax(-1)
    if mask is not None and mask.live is not None:
        weights = weights * mask.live
    if grouped:
        weights = weights.reshape([batch, key.shape[1], -1, columns])
    out = weights.matmul(value)
    return out.reshape([batch, heads, rows, value.shape[-1]]) if grouped else out


def _is_grouped(query: torch.Size, key: torch.Size, value: torch.Size) -> bool:
    """Whether each key head is that of as many query heads, by which nothing but heads is broadcast."""
    alike = [str(size) for size in (query[0], *key[:2])] == [str(size) for size in (key[0], *value[:2])]
    return alike and query[1] != key[1] and query[1] % key[1] == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mask:
    """What is added to the scores, and 0 or 1 for each row where a row may be empty."""

    additive: torch.Tensor
    live: torch.Tensor | None


def _mask(editor: GraphEditor, given: Mapping[str, Any], dtype: torch.dtype) -> _Mask | None:
    mask: fx.Node | None = given["attn_mask"]
    if given["is_causal"]:
        rows, columns = (editor.sizes(given[name])[2] for name in ("query", "key"))
        return _Mask(additive=_causal_mask(editor, rows, columns, dtype), live=None)
    if mask is None:
        return None
    if mask in editor.constants:
        return _constant_mask(editor, editor.constants.value(mask), dtype)
    return editor.once(("mask", editor.node(mask), dtype), lambda: _computed_mask(editor, mask, dtype))  # type: ignore[no-any-return]


def _constant_mask(editor: GraphEditor, mask: torch.Tensor, dtype: torch.dtype) -> _Mask:
    allowed = mask if mask.dtype == torch.bool else mask != -torch.inf
    lowest = torch.finfo(dtype).min
    added = torch.where(mask, 0.0, lowest) if mask.dtype == torch.bool else mask.clamp(min=lowest)
    rows = allowed.any(dim=-1, keepdim=True)
    live = None if bool(rows.all()) else editor.stored(rows.to(dtype), "attention.live")
    return _Mask(additive=editor.stored(added.to(dtype), "attention.mask"), live=live)


def _computed_mask(editor: GraphEditor, node: fx.Node, dtype: torch.dtype) -> _Mask:
    mask = editor.tensor(node)
    if mask.dtype == torch.bool:
        allowed, added = mask, additive(mask, dtype)
        if _rows_of_live_table(node, editor.constants) or _never_empty(editor, node):
            return _Mask(additive=added, live=None)
    else:
        if lower_bound(node, editor.constants) > -math.inf:
            return _Mask(additive=mask, live=None)
        allowed, added = mask.ne(-math.inf), mask.clamp(torch.finfo(dtype).min)
    return _Mask(additive=added, live=allowed.any(-1, True).to(dtype))


def _never_empty(editor: GraphEditor, mask: fx.Node) -> bool:
    """Whether each row of a mask sees something, wherever in a cache a call may begin."""
    return any(
        holds(editor, mask, begin, lambda values, _: values.any(-1))
        for begin in dict.fromkeys(begins(mask.graph))
    )


def _rows_of_live_table(mask: fx.Node, constants: Constants) -> bool:
    """Whether a mask is whole rows of a constant table that empties none of them."""
    while mask.target in _ROWS_KEPT and len(mask.meta["val"].shape) >= 2:
        mask = operand(mask, "x")
    if mask.target == aten.index_select.default:
        source, dimension = operand(mask, "x"), operand(mask, "dim")
        whole_rows = dimension % source.meta["val"].ndim != source.meta["val"].ndim - 1
    else:
        source = operand(mask, "x") if mask.target == aten.index.Tensor else None
        whole_rows = source is not None and len(operand(mask, "indices")) < source.meta["val"].ndim
    return whole_rows and source in constants and bool(constants.value(source).any(dim=-1).all())


_ROWS_KEPT = (aten.unsqueeze.default, aten.alias.default, aten.clone.default)


def additive(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where allowed, the lowest number elsewhere: after the softmax's exponential exactly zero.

    As arithmetic on floats, ``(allowed - 1) * highest``, it needs no shader on bools.
    """
    return (allowed.to(dtype) - 1.0) * torch.finfo(dtype).max


def _causal_mask(editor: GraphEditor, rows: Any, columns: Any, dtype: torch.dtype) -> torch.Tensor:
    """Row i may see columns 0..i. A constant where the sizes are static."""
    if isinstance(rows, int) and isinstance(columns, int):
        allowed = torch.ones(rows, columns, dtype=torch.bool).tril()
        return editor.stored(torch.where(allowed, 0.0, torch.finfo(dtype).min).to(dtype), "attention.causal")

    def make() -> torch.Tensor:
        row = editor.arange(rows).unsqueeze(1)
        return additive(editor.arange(columns) <= row, dtype)

    return editor.once(("causal", rows, columns, dtype), make)  # type: ignore[no-any-return]
