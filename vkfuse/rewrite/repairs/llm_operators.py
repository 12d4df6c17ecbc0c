"""ExecuTorch's own operators over a key-value cache, as torch's.

``llama.update_cache`` and ``llama.custom_sdpa`` (extension/llm/custom_ops/op_update_cache.cpp, op_sdpa.cpp) are CPU kernels
over caches [batch, columns, heads, size] that take the position as a number. The one is a copy to positions; the other is
attention whose row i sees the columns up to position + i or, where a mask is given, what the mask lets it see; of
``llama.custom_quantized_sdpa`` its operands are bytes, with a scale and a zero point for each row of each head.

``llama.gated_delta_rule`` (op_sdpa.cpp: gated_delta_rule_recurrence; https://arxiv.org/abs/2412.06464) is the recurrence of
Qwen3.5's linear attention, a row of the prompt after the other; a step of decoding is one.
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
from vkfuse.rewrite.repairs.permutations import in_one

aten = torch.ops.aten

_SDPA: Final = ("llama.custom_sdpa.default", "llama.custom_quantized_sdpa.default")
_DELTA: Final = ("llama.gated_delta_rule.default", "llama.channelwise_gated_delta_rule.default")
_BYTES: Final = (-128, 127)
_MOST_STEPS: Final = 16  # nine operators each
_UPDATES: Final = ("llama.update_cache.default", "llama.update_cache_with_indices.default")


@replaces(code="llm-operators-written-out", detail="ExecuTorch's own operators as torch's")
def llm_operators_written_out(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    """Write each cache update as a copy to positions, attention over a cache as torch's, a recurrence step by step."""
    if str(node.target) in _SDPA:
        return _attention(editor, node, operands(node))
    call, second = (node.args[0], node.args[1] == 1) if node.target is operator.getitem else (None, False)
    if not isinstance(call, fx.Node):
        return None
    if str(call.target) in _DELTA:
        return _recurrence(editor, operands(call), after=bool(second))
    functional = getattr(call.target, "__name__", "") == "auto_functionalized_v2"
    return _update(editor, call.kwargs) if second and functional and str(call.args[0]) in _UPDATES else None


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


def _recurrence(editor: GraphEditor, given: Mapping[str, Any], *, after: bool) -> torch.Tensor | None:
    """What queries [batch, heads, rows, K] read of a state [batch, key heads, K, V]; with `after` what it is in the end.

    A row lets the state decay, and adds its key times what its value [.., V] is more than what the key reads, times beta.
    """
    query, key, value, decay, beta, state = (editor.tensor(of) for of in given.values())
    rows, heads = value.shape[2], editor.sizes(key)[:2]
    if not isinstance(rows, int) or rows > _MOST_STEPS:
        return None
    read = []
    for row in range(rows):
        q, k, v, faded, new = (_row(of, row, rows) for of in (query, key, value, decay, beta))
        state = state * (faded.transpose(2, 3) if decay.ndim == key.ndim else faded)
        state = state + k.transpose(2, 3) * ((v - k.matmul(state)) * new)
        found = q.reshape([*heads, -1, key.shape[-1]]).matmul(state)
        read.append(found.reshape([*editor.sizes(query)[:2], 1, value.shape[-1]]))
    return state if after else torch.cat(read, 2) if rows > 1 else read[0]


def _row(of: torch.Tensor, row: int, rows: int) -> torch.Tensor:
    """Row `row` of [batch, heads, rows, size], in four dimensions where it has three."""
    alone = of if rows == 1 else aten.slice.Tensor(of, 2, row, row + 1)
    return alone.unsqueeze(3) if of.ndim == 3 else alone


def _attention(editor: GraphEditor, node: fx.Node, given: Mapping[str, Any]) -> torch.Tensor | None:
    """Torch's attention [batch, heads, rows, size], of query [batch, rows, heads, size] and caches [batch, columns, ..]."""
    mask, causal, start = given["attn_mask"], bool(given["is_causal"]), given["start_pos"]
    outermost = given.get("is_seq_at_dim_2", False)
    if given["drpout_p"] or not is_known(start) or (mask is not None and causal) or outermost:
        return None
    query, key, value = (_floats(editor, given, name).transpose(1, 2) for name in ("query", "key", "value"))
    if mask is None:
        rows, columns = (editor.sizes(given[name])[1] for name in ("query", "key"))
        mask = _seen(editor, positions(editor, start, rows), columns, causal=causal)
        mask = additive(mask, node.meta["val"].dtype)
    grouped = bool(query.shape[1] != key.shape[1])
    out: torch.Tensor = aten.scaled_dot_product_attention.default(
        query, key, value, mask, scale=given["scale"], enable_gqa=grouped
    )
    return out.transpose(1, 2)


def _floats(editor: GraphEditor, given: Mapping[str, Any], name: str) -> torch.Tensor:
    """An operand of attention, dequantized where it has scales; caches that are transposed forth and back as they are."""
    codes = in_one(editor, given[name])
    scales, points = (given.get(f"{name[0]}_{of}") for of in ("scales", "zero_points"))
    if scales is None:
        return codes
    by_rows = torch.ops.quantized_decomposed.dequantize_per_token.default
    return editor.tensor(editor.call(by_rows, codes, scales, points, *_BYTES, codes.dtype, torch.float32))


def _seen(editor: GraphEditor, last: torch.Tensor, columns: Any, *, causal: bool) -> torch.Tensor:
    """[rows, columns]: which columns of the cache a row sees, those up to its place, or to the last one's."""
    return editor.arange(columns) <= (last if causal else last[-1:]).unsqueeze(1)
