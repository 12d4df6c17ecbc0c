"""``scaled_dot_product_attention`` as matmuls and a softmax in four dimensions.

ExecuTorch decomposes it into ``_safe_softmax``, whose ``logical_not`` and ``any`` no Vulkan runtime has, and repeats
grouped keys through a fifth dimension. Here grouped queries are viewed as more rows of their key head, masks become
additive, and rows that a mask empties are multiplied by zero, as the operator defines it.
Formula: softmax(q k^T * scale + mask) v, https://pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.bounds import lower_bound
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import done, replaces
from vkfuse.rewrite.repairs.notes import Repairs

aten = torch.ops.aten

_ATTENTION = aten.scaled_dot_product_attention.default
_OPERANDS = ("query", "key", "value")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attention:
    """The arguments of one call; shapes [batch, heads, rows, size], keys and values with fewer heads where grouped."""

    node: fx.Node
    query: fx.Node
    key: fx.Node
    value: fx.Node
    mask: fx.Node | None
    causal: bool
    scale: float
    grouped: bool  # several query heads share a key head


@replaces(_ATTENTION, code="attention-in-four-dimensions", detail="dimensions of one in front")
def attention_in_four_dimensions(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Give attention without a dimension for heads, or for the batch, dimensions of one."""
    operands = [argument(node, i, name) for i, name in enumerate(_OPERANDS)]
    ranks = {operand.meta["val"].ndim for operand in operands}
    missing = 4 - ranks.pop()
    if ranks or missing <= 0:
        return None
    for _ in range(missing):
        operands = [editor.call(aten.unsqueeze.default, operand, 0) for operand in operands]
    out = editor.call(_ATTENTION, *operands, *node.args[3:], **node.kwargs)
    for _ in range(missing):
        out = editor.call(aten.squeeze.dim, out, 0)
    return out


def write_out_attention(exported: ExportedProgram) -> Repairs:
    """Replace each attention operator that has four dimensions and no dropout."""
    found = [a for n in exported.graph.nodes if (a := _attention(n)) is not None]
    editor = GraphEditor(exported)
    for attention in found:
        with editor.before(attention.node):
            editor.replace(attention.node, _write_out(editor, attention))
    if found:
        _relax_views(editor)
    names = (a.node.name for a in found)
    return done(editor, names, code="attention-written-out", detail="matmuls and a plain softmax")


def _relax_views(editor: GraphEditor) -> None:
    """Let every view copy where it must: the fused operator's result has other strides than the matmul's."""
    for node in editor.program.graph.find_nodes(op="call_function", target=aten.view.default):
        with editor.before(node):
            editor.replace(node, editor.call(aten.reshape.default, *node.args))


def _attention(node: fx.Node) -> _Attention | None:
    if node.target != _ATTENTION:
        return None
    query, key, value = (argument(node, i, name) for i, name in enumerate(_OPERANDS))
    if argument(node, 4, "dropout_p", 0.0) != 0.0 or any(
        t.meta["val"].ndim != 4 for t in (query, key, value)
    ):
        return None
    shapes = [operand.meta["val"].shape for operand in (query, key, value)]
    scale, grouped = argument(node, 6, "scale"), _is_grouped(*shapes)
    if argument(node, 7, "enable_gqa", default=False) and len({str(s[1]) for s in shapes}) > 1 + grouped:
        return None
    return _Attention(
        node=node,
        query=query,
        key=key,
        value=value,
        mask=argument(node, 3, "attn_mask"),
        causal=bool(argument(node, 5, "is_causal", default=False)),
        scale=1.0 / math.sqrt(query.meta["val"].shape[-1]) if scale is None else float(scale),
        grouped=grouped,
    )


def _is_grouped(query: torch.Size, key: torch.Size, value: torch.Size) -> bool:
    """Whether each key head is that of as many query heads, by which nothing but heads is broadcast."""
    alike = [str(size) for size in (query[0], *key[:2])] == [str(size) for size in (key[0], *value[:2])]
    return alike and query[1] != key[1] and query[1] % key[1] == 0


def _write_out(editor: GraphEditor, attention: _Attention) -> fx.Node:
    key, value = attention.key, attention.value
    heads = editor.sizes(attention.query)
    query = editor.call(aten.mul.Tensor, attention.query, attention.scale)
    if attention.grouped:
        query = editor.call(aten.reshape.default, query, [heads[0], key.meta["val"].shape[1], -1, heads[3]])
    scores = editor.call(aten.matmul.default, query, editor.call(aten.transpose.int, key, -2, -1))
    if attention.grouped:
        scores = editor.call(
            aten.reshape.default, scores, [heads[0], heads[1], heads[2], editor.sizes(attention.key)[2]]
        )
    mask = _additive_mask(editor, attention)
    if mask is not None:
        scores = editor.call(aten.add.Tensor, scores, mask.additive)
    weights = editor.call(aten.softmax.int, scores, -1)
    if mask is not None and mask.live is not None:
        weights = editor.call(aten.mul.Tensor, weights, mask.live)
    if attention.grouped:
        shape = [heads[0], key.meta["val"].shape[1], -1, editor.sizes(attention.key)[2]]
        weights = editor.call(aten.reshape.default, weights, shape)
    out = editor.call(aten.matmul.default, weights, value)
    if attention.grouped:
        out = editor.call(aten.reshape.default, out, [*heads[:3], value.meta["val"].shape[-1]])
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mask:
    """What is added to the scores, and 0 or 1 for each row where a row may be empty."""

    additive: fx.Node
    live: fx.Node | None


def _additive_mask(editor: GraphEditor, attention: _Attention) -> _Mask | None:
    dtype = attention.query.meta["val"].dtype
    if attention.causal:
        return _Mask(additive=_causal_mask(editor, attention, dtype), live=None)
    if attention.mask is None:
        return None
    mask, constants = attention.mask, editor.constants
    if mask in constants:
        return _constant_mask(editor, constants.value(mask), dtype)
    return editor.once(("mask", editor.node(mask), dtype), lambda: _computed_mask(editor, mask, dtype))  # type: ignore[no-any-return]


def _constant_mask(editor: GraphEditor, mask: torch.Tensor, dtype: torch.dtype) -> _Mask:
    allowed = mask if mask.dtype == torch.bool else mask != -torch.inf
    lowest = torch.finfo(dtype).min
    additive = torch.where(mask, 0.0, lowest) if mask.dtype == torch.bool else mask.clamp(min=lowest)
    rows = allowed.any(dim=-1, keepdim=True)
    live = None if bool(rows.all()) else editor.constant(rows.to(dtype), "attention.live")
    return _Mask(additive=editor.constant(additive.to(dtype), "attention.mask"), live=live)


def _computed_mask(editor: GraphEditor, mask: fx.Node, dtype: torch.dtype) -> _Mask:
    if mask.meta["val"].dtype == torch.bool:
        allowed, added = mask, additive(editor, mask, dtype)
        if _rows_of_live_table(mask, editor.constants):
            return _Mask(additive=added, live=None)
    else:
        if lower_bound(mask, editor.constants) > -math.inf:
            return _Mask(additive=mask, live=None)
        allowed = editor.call(aten.ne.Scalar, mask, -math.inf)
        added = editor.call(aten.clamp.default, mask, torch.finfo(dtype).min)
    rows = editor.call(aten.any.dim, allowed, -1, True)
    return _Mask(additive=added, live=editor.cast(rows, dtype))


def _rows_of_live_table(mask: fx.Node, constants: Constants) -> bool:
    """Whether a mask is whole rows of a constant table that empties none of them."""
    while mask.target in _ROWS_KEPT and len(mask.meta["val"].shape) >= 2:
        mask = argument(mask, 0, "self")
    if mask.target == aten.index_select.default:
        source, dimension = argument(mask, 0, "self"), argument(mask, 1, "dim")
        whole_rows = dimension % source.meta["val"].ndim != source.meta["val"].ndim - 1
    else:
        source = argument(mask, 0, "self") if mask.target == aten.index.Tensor else None
        whole_rows = source is not None and len(argument(mask, 1, "indices")) < source.meta["val"].ndim
    return whole_rows and source in constants and bool(constants.value(source).any(dim=-1).all())


_ROWS_KEPT = (aten.unsqueeze.default, aten.alias.default, aten.clone.default)


def additive(editor: GraphEditor, allowed: fx.Node, dtype: torch.dtype) -> fx.Node:
    """0 where allowed, the lowest number elsewhere: after the softmax's exponential exactly zero.

    As arithmetic on floats, ``(allowed - 1) * highest``, it needs no shader on bools.
    """
    below = editor.call(aten.sub.Tensor, editor.cast(allowed, dtype), 1.0)
    return editor.call(aten.mul.Tensor, below, torch.finfo(dtype).max)


def _causal_mask(editor: GraphEditor, attention: _Attention, dtype: torch.dtype) -> Any:
    """Row i may see columns 0..i. A constant where the sizes are static."""
    rows, columns = editor.sizes(attention.query)[2], editor.sizes(attention.key)[2]
    if isinstance(rows, int) and isinstance(columns, int):
        allowed = torch.ones(rows, columns, dtype=torch.bool).tril()
        return editor.constant(
            torch.where(allowed, 0.0, torch.finfo(dtype).min).to(dtype), "attention.causal"
        )

    def make() -> Any:
        row = editor.call(aten.unsqueeze.default, editor.call(aten.arange.default, rows), 1)
        allowed = editor.call(aten.le.Tensor, editor.call(aten.arange.default, columns), row)
        return additive(editor, allowed, dtype)

    return editor.once(("causal", rows, columns, dtype), make)
