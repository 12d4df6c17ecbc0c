"""Attention over a cache that is written in place, by the runtime's own operator.

The runtime's ``llama.custom_sdpa`` (impl/SDPA.cpp) lets row i of a call see the columns of the cache up to position + i,
reads no others, and repeats no keys. A program says the same by a mask over the whole cache, which it computes from the
position: here that mask is evaluated wherever a call may begin, and nothing is replaced where any of its values is another.

Only of a cache that fits no texture: with a shorter one the runtime computes a token faster where it reads all of it
(docs/llm.md has figures), since it need not look at each operator's sizes before a call.
"""

import math
from typing import Final

import torch
from torch import fx

from vkfuse.program.tensors import greatest
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operands
from vkfuse.rewrite.repairs.attention import ATTENTION
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.repairs.masks import begins, holds, known
from vkfuse.rewrite.repairs.repeats import repeat_of
from vkfuse.runtime.device import COMMON, SMALL_TEXTURE
from vkfuse.runtime.operators.attention import weights_of

aten = torch.ops.aten

_LOWEST: Final = -1e30  # what is added to a score that is not seen, at most: its exponential is zero
LEAST: Final = SMALL_TEXTURE[2] + 1  # rows of a cache


@replaces(
    ATTENTION, code="attention-over-caches", detail="the runtime's own operator, which reads what is written"
)
def attention_over_caches(
    editor: GraphEditor, node: fx.Node, query: torch.Tensor, key: fx.Node, value: fx.Node
) -> torch.Tensor | None:
    """Replace attention over float32 caches [1, heads, columns, size] where a row sees what was written up to it."""
    given, keys, values = operands(node), _heads(key), _heads(value)
    mask: fx.Node | None = given["attn_mask"]
    if mask is None or given["dropout_p"] or not _scaled(given["scale"], query.shape[-1]):
        return None
    if not _fits(query, keys, values):
        return None
    for begin in dict.fromkeys(begins(node.graph)):
        if (begin.rows, begin.columns) != (known(query.shape[2]), keys.meta["val"].shape[2]):
            continue
        if editor.once((mask, begin), lambda begin=begin: holds(editor, mask, begin, _is_causal)):
            q, k, v = (x.transpose(1, 2) for x in (query, editor.tensor(keys), editor.tensor(values)))
            out: torch.Tensor = torch.ops.vkfuse.custom_sdpa.default(q, k, v, editor.tensor(begin.position))
            return out.transpose(1, 2)
    return None


def _is_causal(mask: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """For each value of a mask whether it allows what is `allowed`, and nothing else."""
    if mask.dtype == torch.bool:
        return mask == allowed
    return torch.where(allowed, mask == 0, mask <= _LOWEST)


def _heads(node: fx.Node) -> fx.Node:
    """Keys or values before they were repeated for their queries."""
    repeat = repeat_of(node)
    return node if repeat is None or repeat.dimension != 1 else repeat.source


def _fits(query: torch.Tensor, keys: fx.Node, values: fx.Node) -> bool:
    """Whether the operator takes them: one sequence, whole texels of columns, as many queries for each head."""
    shape = keys.meta["val"].shape
    static = all(isinstance(size, int) for size in (*shape, *query.shape[:2], query.shape[3]))
    kinds = {x.dtype for x in (query, keys.meta["val"], values.meta["val"])}
    if not static or len(shape) != 4 or kinds != {torch.float32} or shape != values.meta["val"].shape:
        return False
    (batch, heads, columns, size), queries = shape, query.shape
    if columns < LEAST or weights_of(queries[1], int(greatest(queries[2])), columns) >= COMMON.buffer:
        return False
    alike: bool = batch == queries[0] == 1 and size == queries[3] and queries[1] % heads == 0
    return alike and size % 4 == 0


def _scaled(scale: float | None, size: int) -> bool:
    return scale is None or math.isclose(scale, 1 / math.sqrt(size), rel_tol=1e-7)
