"""ExecuTorch's own operators over a key-value cache, as torch's.

``llama.update_cache`` and ``llama.custom_sdpa`` (extension/llm/custom_ops/op_update_cache.cpp, op_sdpa.cpp) are CPU kernels
over caches [batch, columns, heads, size] that take the position as a number. The one is a copy to positions; the other is
attention whose row i sees the columns up to position + i or, where a mask is given, what the mask lets it see.
"""

import operator
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operands
from vkfuse.rewrite.repairs.attention import additive
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.repairs.numbers import is_known, positions

aten = torch.ops.aten

_SDPA: Final = "llama.custom_sdpa.default"
_UPDATES: Final = ("llama.update_cache.default", "llama.update_cache_with_indices.default")


@replaces(code="llm-operators-written-out", detail="ExecuTorch's own operators as torch's")
def llm_operators_written_out(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    """Write each cache update as a copy to positions, each attention over a cache as torch's."""
    if str(node.target) == _SDPA:
        return _attention(editor, node, operands(node))
    update = node.args[0] if node.target is operator.getitem and node.args[1] == 1 else None
    return _update(editor, update.kwargs) if isinstance(update, fx.Node) and _is_update(update) else None


def _update(editor: GraphEditor, given: Mapping[str, Any]) -> torch.Tensor | None:
    """The cache after an update, the second result of its functional form: `value` written as a copy to positions."""
    start, indices, value = given["start_pos"], given.get("indices"), given["value"]
    batched = indices is not None and indices.meta["val"].shape[0] != 1
    if {*given} - _FUNCTIONAL or not is_known(start) or batched:
        return None
    cache, rows = editor.tensor(given["_all_bases"][0]), editor.tensor(value)
    if indices is not None:
        return cache.index_copy(1, editor.tensor(indices).reshape([-1]), rows)
    return cache.index_copy(1, positions(editor, start, editor.sizes(value)[1]), rows)


# What the functional form of an update of a whole tensor, no view of one, is called with.
_FUNCTIONAL: Final = frozenset({"value", "start_pos", "indices", "_cache_base_index", "_all_bases"})


def _is_update(node: fx.Node) -> bool:
    functional = getattr(node.target, "__name__", "") == "auto_functionalized_v2"
    return functional and str(node.args[0]) in _UPDATES


def _attention(editor: GraphEditor, node: fx.Node, given: Mapping[str, Any]) -> torch.Tensor | None:
    """Torch's attention [batch, heads, rows, size], of query [batch, rows, heads, size] and caches [batch, columns, ..]."""
    mask, causal, start = given["attn_mask"], bool(given["is_causal"]), given["start_pos"]
    if given["drpout_p"] or not is_known(start) or (mask is not None and causal):
        return None
    query, key, value = (editor.tensor(given[name]).transpose(1, 2) for name in ("query", "key", "value"))
    if mask is None:
        rows, columns = (editor.sizes(given[name])[1] for name in ("query", "key"))
        mask = _seen(editor, positions(editor, start, rows), columns, causal=causal)
        mask = additive(mask, node.meta["val"].dtype)
    grouped = bool(query.shape[1] != key.shape[1])
    out: torch.Tensor = aten.scaled_dot_product_attention.default(
        query, key, value, mask, scale=given["scale"], enable_gqa=grouped
    )
    return out.transpose(1, 2)


def _seen(editor: GraphEditor, last: torch.Tensor, columns: Any, *, causal: bool) -> torch.Tensor:
    """[rows, columns]: which columns of the cache a row sees, those up to its place, or to the last one's."""
    return editor.arange(columns) <= (last if causal else last[-1:]).unsqueeze(1)
