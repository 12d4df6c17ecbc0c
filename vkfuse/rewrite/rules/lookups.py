"""Lookups of a table in another form: fused in 4 bits, integer rows gathered first, or, the last resort, folded to floats.

Indices are one row: the shader reads only one row of an index texture. Results get the site's shape back.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from vkfuse.program.tensors import TORCH_TYPES, array, tensor
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.decisions import Held, Proposal
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.prove import original_rows
from vkfuse.rewrite.rules.matmuls import packer_of
from vkfuse.rewrite.sites import Site, Table
from vkfuse.rewrite.traced import untraced, wrapped
from vkfuse.runtime.operators.lookup import FUSED
from vkfuse.tables.byte_rows import gathered_rows
from vkfuse.tables.decisions import Refusal, Rung
from vkfuse.tables.floats import Array
from vkfuse.tables.grid import Grid
from vkfuse.tables.planes import NibbleRows, nibble_rows, rows_by_factors
from vkfuse.tables.q4 import LOOKUP_COLUMNS, Q4Pack, lookup_pack

aten = torch.ops.aten


def propose_q4_lookup(site: Site, table: Table, constants: Constants) -> Proposal | Refusal:
    """``et_vk.embedding_q4gsw``, or why the operator cannot express this table."""
    pack = _no_indices(site) or lookup_pack(site.numbers(), table.readers, packer_of(table, constants))
    return pack if isinstance(pack, Refusal) else _proposed(pack, site, table)


def _proposed(pack: Q4Pack | NibbleRows | Grid, site: Site, table: Table) -> Proposal:
    return Proposal(
        name=table.name,
        pack=pack,
        stored={what: tensor(part) for what, part in pack.parts.items()},
        made=partial(_fused, pack) if isinstance(pack, Q4Pack) else partial(_gathered, pack),
        rung=Rung.GATHERED if isinstance(pack, Grid) else Rung.Q4,
        operators=() if isinstance(pack, Grid) else (FUSED,),
        how=(*pack.how, *_steps(site)),
    )


def _no_indices(site: Site) -> Refusal | None:
    """The refusal of indices that are empty by their shape."""
    if site.lookups().meta["val"].numel():
        return None
    return Refusal(code="no-indices", detail="the index tensor is empty by its shape")


def _fused(pack: Q4Pack, editor: GraphEditor, site: Site, held: Held) -> torch.Tensor:
    """Rows for each index, columns sliced and cast back where needed."""
    indices, linear = _flat_indices(editor, site, pack.rows), pack.is_linear_weight
    rows = _lookup(held("q4"), held("scales"), pack.group_size, indices, linear)
    if pack.columns != pack.padded_columns:
        rows = aten.slice_copy.Tensor(rows, 1, 0, pack.columns)
    return _restored(editor, site, rows.to(TORCH_TYPES[pack.dtype]))


def _lookup(weight: Any, scales: Any, group: int, indices: torch.Tensor, linear: bool) -> torch.Tensor:
    return torch.ops.et_vk.embedding_q4gsw.default(weight, scales, group, indices, linear)  # type: ignore[no-any-return]


def propose_nibble_rows(site: Site, table: Table, constants: Constants) -> Proposal | Refusal:
    """4-bit rows looked up by scales of one, and what was looked up dequantized; or why that cannot be."""
    del constants
    rows = _no_indices(site) or nibble_rows(site.numbers(), table.readers)
    return rows if isinstance(rows, Refusal) else _proposed(rows, site, table)


def propose_shared_scales(site: Site, table: Table, constants: Constants) -> Proposal | Refusal:
    """4-bit rows by the scales that a tied matmul stores; or why they cannot be read."""
    if table.factors is None:
        return Refusal(code="scales-apart", detail="no matmul stores scales of the table", beside=True)
    pack = _no_indices(site) or packer_of(table, constants)(
        site.numbers(), table.readers, columns_multiple=LOOKUP_COLUMNS
    )
    rows = pack if isinstance(pack, Refusal) else rows_by_factors(pack, table.factors, table.readers)
    if isinstance(rows, Refusal):
        return replace(rows, beside=True)
    return _proposed(rows, site, table)


def propose_gathered_rows(site: Site, table: Table, constants: Constants) -> Proposal | Refusal:
    """One byte a weight, gathered on the CPU, and only what was gathered dequantized; or why that cannot be."""
    del constants
    rows = gathered_rows(site.numbers())
    return rows if isinstance(rows, Refusal) else _proposed(rows, site, table)


def _gathered(table: Grid | NibbleRows, editor: GraphEditor, site: Site, held: Held) -> torch.Tensor:
    """Rows for each index, dequantized as the program does."""
    grid = site.numbers()
    indices = _flat_indices(editor, site, grid.rows)

    def gathered(what: str, at: torch.Tensor) -> torch.Tensor:
        return aten.embedding.default(held(what), at).to(torch.float32)  # type: ignore[no-any-return]

    if isinstance(table, NibbleRows):
        rows = _lookup(held("q4"), held("ones"), grid.columns, indices, table.pack.is_linear_weight)
    else:
        rows = gathered("int8", indices)
    rows = rows.reshape([-1, table.scales.shape[1], table.group_size])
    if table.zero_points is not None:
        rows = rows - gathered("zero_points", indices).unsqueeze(-1)
    if isinstance(table, NibbleRows) and table.turned:
        scales = gathered("scales", _by_group(editor, site, *table.scales.shape))
    else:
        scales = gathered("scales", indices).unsqueeze(-1)
    rows = (rows * scales).reshape([-1, grid.columns])
    return _restored(editor, site, rows.to(TORCH_TYPES[grid.dtype]))


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

    def looked_up(editor: GraphEditor, site: Site, held: Held) -> torch.Tensor:
        return aten.embedding.default(held("float"), editor.tensor(site.lookups()))  # type: ignore[no-any-return]

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


def _indices(editor: GraphEditor, site: Site, rows: int) -> torch.Tensor:
    """The site's indices, counted from the start."""
    node = editor.node(site.lookups())
    if _needs_wrapping(site):
        return editor.once(("wrapped", node, rows), lambda: wrapped(editor.tensor(node), rows))  # type: ignore[no-any-return]
    return editor.tensor(node)


def _by_group(editor: GraphEditor, site: Site, rows: int, groups: int) -> torch.Tensor:
    """Places [n, groups] of what `groups` stretches of so many rows have for each of the site's indices."""
    indices = _indices(editor, site, site.numbers().rows)

    def make() -> torch.Tensor:
        starts = torch.arange(groups, dtype=indices.dtype) * rows
        places = indices.unsqueeze(-1) + editor.stored(starts, "starts")
        return places.reshape([-1, groups]) if _many_rows(site) else places

    return editor.once(("by group", untraced(indices), rows, groups), make)  # type: ignore[no-any-return]


def _flat_indices(editor: GraphEditor, site: Site, rows: int) -> torch.Tensor:
    """The site's indices as one row [n]."""
    indices = _indices(editor, site, rows)
    if not _many_rows(site):
        return indices
    return editor.once(("flat", untraced(indices)), lambda: indices.reshape([-1]))  # type: ignore[no-any-return]


def _restored(editor: GraphEditor, site: Site, rows: torch.Tensor) -> torch.Tensor:
    """Rows [n, columns] in the shape of the site: its indices' shape and that of a row."""
    row = _row(site)
    same = not _many_rows(site) and len(row) == 1
    return rows if same else rows.reshape([*editor.sizes(site.lookups()), *row])


def _row(site: Site) -> tuple[int, ...]:
    """Shape of a row of what the site reads."""
    return (site.numbers().columns,) if site.operand is None else tuple(site.operand.meta["val"].shape[1:])
