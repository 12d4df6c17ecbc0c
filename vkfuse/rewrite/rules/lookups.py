"""Lookups of a table in another form: fused in 4 bits, integer rows gathered first, or, the last resort, folded to floats.

Indices are one row: the shader reads only one row of an index texture. Results get the site's shape back.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from vkfuse.program.tensors import TORCH_TYPES, array, tensor
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.decisions import Held, Proposal
from vkfuse.rewrite.prove import original_rows
from vkfuse.rewrite.sites import Site, Table
from vkfuse.rewrite.traced import untraced
from vkfuse.rewrite.wrapping import wrapped
from vkfuse.tables.byte_rows import ByteRows, gathered_rows
from vkfuse.tables.decisions import Refusal, Rung
from vkfuse.tables.floats import Array
from vkfuse.tables.planes import NibbleRows, nibble_rows
from vkfuse.tables.q4 import Q4Pack, lookup_pack

if TYPE_CHECKING:
    from vkfuse.rewrite.editor import GraphEditor

aten = torch.ops.aten


def propose_q4_lookup(site: Site, table: Table, constants: Constants) -> Proposal | Refusal:
    """``et_vk.embedding_q4gsw``, or why the operator cannot express this table."""
    del constants
    pack = _no_indices(site) or lookup_pack(site.numbers(), table.readers)
    if isinstance(pack, Refusal):
        return pack
    return Proposal(
        name=table.name,
        pack=pack,
        stored={"q4": tensor(pack.packed), "scales": tensor(pack.scales)},
        made=partial(_fused, pack),
        rung=Rung.Q4,
        operators=("et_vk.embedding_q4gsw.default",),
        how=(*pack.how, *_steps(site)),
    )


def _no_indices(site: Site) -> Refusal | None:
    """The refusal of indices that are empty by their shape."""
    if site.lookups().meta["val"].numel():
        return None
    return Refusal(code="no-indices", detail="the index tensor is empty by its shape")


def _fused(pack: Q4Pack, editor: "GraphEditor", site: Site, held: Held) -> fx.Node:
    """Rows for each index, columns sliced and cast back where needed."""
    weight, scales = held("q4"), held("scales")
    indices = _flat_indices(editor, site, pack.rows)
    operator = torch.ops.et_vk.embedding_q4gsw.default
    rows = editor.call(operator, weight, scales, pack.group_size, indices, pack.is_linear_weight)
    if pack.columns != pack.padded_columns:
        rows = editor.call(aten.slice_copy.Tensor, rows, 1, 0, pack.columns)
    return _restored(editor, site, editor.cast(rows, TORCH_TYPES[pack.dtype]), pack.columns)


def propose_nibble_rows(site: Site, table: Table, constants: Constants) -> Proposal | Refusal:
    """4-bit rows looked up by scales of one, and what was looked up dequantized; or why that cannot be."""
    del constants
    rows = _no_indices(site) or nibble_rows(site.numbers(), table.readers)
    if isinstance(rows, Refusal):
        return rows
    points = {} if rows.zero_points is None else {"zero_points": rows.zero_points}
    parts = {"q4": rows.pack.packed, "scales": rows.scales, **points, "ones": rows.pack.scales}
    how = ("offsets-gathered",) if points else ("scales-gathered",)
    return Proposal(
        name=table.name,
        pack=rows,
        stored={what: tensor(part) for what, part in parts.items()},
        made=partial(_gathered, rows),
        rung=Rung.Q4,
        operators=("et_vk.embedding_q4gsw.default",),
        how=(*rows.pack.how, *how, *_steps(site)),
    )


def propose_gathered_rows(site: Site, table: Table, constants: Constants) -> Proposal | Refusal:
    """One byte a weight, gathered on the CPU, and only what was gathered dequantized; or why that cannot be."""
    del constants
    grid = site.numbers()
    rows = gathered_rows(grid)
    if isinstance(rows, Refusal):
        return rows
    points = {} if rows.zero_points is None else {"zero_points": tensor(rows.zero_points)}
    return Proposal(
        name=table.name,
        pack=rows,
        stored={"int8": tensor(rows.values), "scales": tensor(rows.scales), **points},
        made=partial(_gathered, rows),
        rung=Rung.GATHERED,
        how=(*(("grid-found",) if grid.found else ()), *_steps(site)),
    )


def _gathered(table: ByteRows | NibbleRows, editor: "GraphEditor", site: Site, held: Held) -> fx.Node:
    """Rows for each index, dequantized as the program does."""
    columns, dtype = site.numbers().columns, site.numbers().dtype
    indices = _flat_indices(editor, site, site.numbers().rows)

    def of_groups(what: str) -> fx.Node:
        return editor.call(aten.unsqueeze.default, gathered(what), -1)

    def gathered(what: str) -> fx.Node:
        return editor.cast(editor.call(aten.embedding.default, held(what), indices), torch.float32)

    if isinstance(table, NibbleRows):
        parts = (held("q4"), held("ones"), columns, indices, table.pack.is_linear_weight)
        rows = editor.call(torch.ops.et_vk.embedding_q4gsw.default, *parts)
    else:
        rows = gathered("int8")
    rows = editor.call(aten.reshape.default, rows, [-1, table.scales.shape[1], table.group_size])
    if table.zero_points is not None:
        rows = editor.call(aten.sub.Tensor, rows, of_groups("zero_points"))
    rows = editor.call(aten.mul.Tensor, rows, of_groups("scales"))
    rows = editor.call(aten.reshape.default, rows, [-1, columns])
    return _restored(editor, site, editor.cast(rows, TORCH_TYPES[dtype]), columns)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Floats:
    """A table as floats [rows, columns]."""

    values: torch.Tensor

    def rebuild(self, low: int, high: int) -> Array:
        """Rows [low, high), [high - low, columns]."""
        return array(self.values[low:high])


def fold_lookup(site: Site, table: Table, constants: Constants) -> Proposal | None:
    """The folded table of a lookup that dequantizes by itself, None for all others: constant folding serves them."""
    if site.operand is not None or site.grid is None:
        return None
    rows = original_rows(site, constants)(0, site.grid.rows)
    values = tensor(rows).to(site.node.meta["val"].dtype)

    def looked_up(editor: "GraphEditor", site: Site, held: Held) -> fx.Node:
        return editor.call(aten.embedding.default, held("float"), site.lookups())

    return Proposal(
        name=table.name,
        pack=_Floats(values=values),
        stored={"float": values},
        made=looked_up,
        rung=Rung.FOLDED,
    )


def _needs_wrapping(site: Site) -> bool:
    """Whether the site's operator counts negative indices from the end, which a lookup does not."""
    return site.node.target == aten.index.Tensor


def _many_rows(site: Site) -> bool:
    return bool(site.lookups().meta["val"].ndim != 1)


def _steps(site: Site) -> tuple[str, ...]:
    """Codes of what is done to the indices."""
    codes = {"indices-flattened": _many_rows(site), "indices-wrapped": _needs_wrapping(site)}
    return tuple(code for code, done in codes.items() if done)


def _flat_indices(editor: "GraphEditor", site: Site, rows: int) -> fx.Node:
    """The site's indices as one row [n]."""
    indices: Any = editor.node(site.lookups())
    if _needs_wrapping(site):
        unwrapped = indices
        made = editor.once(("wrapped", indices, rows), lambda: wrapped(editor.tensor(unwrapped), rows))
        indices = untraced(made)
    if not _many_rows(site):
        return indices  # type: ignore[no-any-return]
    return editor.once(("flat", indices), lambda: editor.call(aten.reshape.default, indices, [-1]))  # type: ignore[no-any-return]


def _restored(editor: "GraphEditor", site: Site, rows: fx.Node, columns: int) -> fx.Node:
    """Rows [n, columns] in the shape of the site: its indices' shape and the columns."""
    if not _many_rows(site):
        return rows
    return editor.call(aten.reshape.default, rows, [*editor.sizes(site.lookups()), columns])
