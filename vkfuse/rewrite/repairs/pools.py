"""Pools along a sequence as pools of images one pixel high.

Decomposed by ExecuTorch, the dimension that is added goes again by a squeeze of a negative dimension, which the runtime
does not resize in buffers. A pool to a single value is a mean, which needs no images.
"""

from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replace_each
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten

_POOLS: dict[Any, Any] = {
    aten.avg_pool1d.default: aten.avg_pool2d.default,
    aten.max_pool1d.default: aten.max_pool2d.default,
    aten.adaptive_avg_pool1d.default: aten.adaptive_avg_pool2d.default,
}
_UNITS = {
    "output_size": 1,
    "kernel_size": 1,
    "stride": 1,
    "padding": 0,
    "dilation": 1,
}  # along the added dimension


def pools_as_images(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Replace each pool of [batch, channels, length] with a symbolic size."""
    found = [n for n in exported.graph.nodes if n.target in _POOLS and _is_dynamic(n)]
    detail = "a pool of images one pixel high"
    return replace_each(exported, found, _of_images, code="pools-as-images", detail=detail)


def _is_dynamic(node: fx.Node) -> bool:
    shape = argument(node, 0, "self").meta["val"].shape
    return any(isinstance(size, torch.SymInt) for size in shape)


def _of_images(editor: GraphEditor, node: fx.Node) -> fx.Node:
    pool = _POOLS[node.target]
    if node.args[1] == [1] and pool == aten.adaptive_avg_pool2d.default:
        return editor.call(aten.mean.dim, editor.node(argument(node, 0, "self")), [-1], True)
    images = editor.call(aten.unsqueeze.default, editor.node(argument(node, 0, "self")), -2)
    names = [a.name for a in node.target._schema.arguments][1 : len(node.args)]  # type: ignore[union-attr]  # noqa: SLF001
    pairs = {name: _pair(name, value) for name, value in zip(names, node.args[1:], strict=True)}
    if "kernel_size" in pairs:
        pairs["stride"] = pairs.get("stride") or pairs["kernel_size"]
    pooled = editor.call(pool, images, **pairs)
    return editor.call(aten.squeeze.dim, pooled, node.meta["val"].ndim - 1)


def _pair(name: str, given: Any) -> Any:
    """A list of one number as one of two; anything else as it is."""
    return [_UNITS[name], *given] if isinstance(given, (list, tuple)) and given else given
