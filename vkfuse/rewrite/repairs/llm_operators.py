"""ExecuTorch's own operators over a key-value cache, as torch's.

``llama.update_cache`` and ``llama.custom_sdpa`` (extension/llm/custom_ops/op_update_cache.cpp, op_sdpa.cpp) are CPU kernels
over caches [batch, columns, heads, size] that take the position as a number. The one is a copy to positions; the other is
attention whose row i sees the columns up to position + i or, where a mask is given, what the mask lets it see.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.attention import additive
from vkfuse.rewrite.repairs.each import done
from vkfuse.rewrite.repairs.notes import Repairs
from vkfuse.rewrite.repairs.numbers import is_known, positions

aten = torch.ops.aten

_SDPA: Final = "llama.custom_sdpa.default"
_UPDATE: Final = "llama.update_cache.default"
_INDEXED_UPDATE: Final = "llama.update_cache_with_indices.default"
_OPERANDS: Final = ("query", "key_cache", "value_cache")


def llm_operators_written_out(exported: ExportedProgram) -> Repairs:
    """Write each cache update as a copy to positions, each attention over a cache as torch's."""
    updates = [u for n in exported.graph.nodes if (u := _update(n)) is not None]
    attentions = [a for n in exported.graph.nodes if (a := _attention(n)) is not None]
    editor = GraphEditor(exported)
    found: tuple[_Update | _Attention, ...] = (*updates, *attentions)
    for made in found:
        with editor.before(made.node):
            editor.replace(made.node, made.written(editor))
    names, detail = (made.node.name for made in found), "ExecuTorch's own operators as torch's"
    return done(editor, names, code="llm-operators-written-out", detail=detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Update:
    """`node` is `cache` after `value` has been written from `start` on, or to the positions `indices` [1, rows]."""

    node: fx.Node
    cache: fx.Node
    value: fx.Node
    start: Any
    indices: fx.Node | None

    def written(self, editor: GraphEditor) -> fx.Node:
        """A copy to positions."""
        if self.indices is None:
            to = positions(editor, self.start, editor.sizes(self.value)[1])
        else:
            to = editor.call(aten.reshape.default, self.indices, [-1])
        return editor.call(aten.index_copy.default, self.cache, 1, to, self.value)


def _update(node: fx.Node) -> _Update | None:
    """The second result of an update's functional form, which is the cache after it."""
    call = (
        node.args[0] if node.args and node.target.__class__.__name__ == "builtin_function_or_method" else None
    )
    if not isinstance(call, fx.Node) or not _is_update(call) or node.args[1] != 1:
        return None
    given: dict[str, Any] = {**call.kwargs}
    start, indices = given["start_pos"], given.get("indices")
    batched = indices is not None and indices.meta["val"].shape[0] != 1
    if {*given} - _FUNCTIONAL or not is_known(start) or batched:
        return None
    return _Update(
        node=node, cache=given["_all_bases"][0], value=given["value"], start=start, indices=indices
    )


# What the functional form of an update of a whole tensor, no view of one, is called with.
_FUNCTIONAL: Final = frozenset({"value", "start_pos", "indices", "_cache_base_index", "_all_bases"})


def _is_update(node: fx.Node) -> bool:
    functional = getattr(node.target, "__name__", "") == "auto_functionalized_v2"
    return functional and str(node.args[0]) in {_UPDATE, _INDEXED_UPDATE}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attention:
    """A call over query [batch, rows, heads, size] and caches [batch, columns, key heads, size]."""

    node: fx.Node
    start: Any
    mask: fx.Node | None
    causal: bool
    scale: float | None

    def written(self, editor: GraphEditor) -> fx.Node:
        """Torch's attention over [batch, heads, rows, size]."""
        operands = [argument(self.node, at, name) for at, name in enumerate(_OPERANDS)]
        moved = [editor.call(aten.transpose.int, operand, 1, 2) for operand in operands]
        mask = self._seen(editor) if self.mask is None else self.mask
        grouped = bool(moved[0].meta["val"].shape[1] != moved[1].meta["val"].shape[1])
        operator = aten.scaled_dot_product_attention.default
        out = editor.call(operator, *moved, mask, scale=self.scale, enable_gqa=grouped)
        return editor.call(aten.transpose.int, out, 1, 2)

    def _seen(self, editor: GraphEditor) -> fx.Node:
        """[rows, columns], added to the scores: 0 for the columns of the cache that a row sees, the lowest number else."""
        rows = editor.sizes(argument(self.node, 0, "query"))[1]
        last = positions(editor, self.start, rows)
        columns = editor.sizes(argument(self.node, 1, "key_cache"))[1]
        seen = last if self.causal else editor.call(aten.slice.Tensor, last, 0, -1)
        every = editor.call(aten.arange.default, columns)
        allowed = editor.call(aten.le.Tensor, every, editor.call(aten.unsqueeze.default, seen, 1))
        return additive(editor, allowed, self.node.meta["val"].dtype)


def _attention(node: fx.Node) -> _Attention | None:
    if str(node.target) != _SDPA:
        return None
    start, mask = argument(node, 3, "start_pos"), argument(node, 4, "attn_mask")
    causal = bool(argument(node, 6, "is_causal", default=False))
    if argument(node, 5, "drpout_p", 0.0) or not is_known(start) or (mask is not None and causal):
        return None
    return _Attention(node=node, start=start, mask=mask, causal=causal, scale=argument(node, 7, "scale"))
