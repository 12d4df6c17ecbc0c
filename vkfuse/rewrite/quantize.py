"""Lossy, and only when asked: tables of floats become integers with scales, scales of lookups become halves.

The program is changed before anything else looks at it; all that is proved and verified after holds against the changed
program. What the change itself lost is measured here, table by table.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.lossy import Lossy
from vkfuse.program.content import content
from vkfuse.program.tensors import TORCH_TYPES, array, scalar_type, tensor
from vkfuse.pte.enums import ScalarType
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.prove import original_rows
from vkfuse.rewrite.sites import Site
from vkfuse.rewrite.survey import NAMED, float_reads, survey
from vkfuse.tables.floats import Array, halves
from vkfuse.tables.grid import Grid
from vkfuse.tables.proven import Loss, WhatIf
from vkfuse.tables.quantize import FLOAT, HALF, in_halves, loss, quantized, what_if
from vkfuse.tables.readers import Consumer

aten = torch.ops.aten
HALF_SCALES = "half scales"  # how a table was changed whose scales were rounded
_PACKED = 4  # bits of a value that is stored in half a byte


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A table that was changed: how, in the words of the option, and what it lost."""

    name: str
    how: str
    loss: Loss


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """A site that is to read the table of `grid`."""

    site: Site
    name: str
    how: str
    grid: Grid


Result = tuple[ExportedProgram, tuple[Changed, ...]]


def quantize_floats(exported: ExportedProgram, lossy: Lossy) -> Result:
    """The program with the float tables that `lossy` takes as integers and scales, each table once for all of its sites."""
    constants = Constants(exported)
    return _changed(exported, constants, [*_float_changes(exported, constants, lossy)])


def round_scales(exported: ExportedProgram) -> Result:
    """The program with the scales of quantized tables that are looked up as halves, for all of their sites."""
    constants = Constants(exported)
    return _changed(exported, constants, [*_scale_changes(exported, constants)])


def _float_changes(exported: ExportedProgram, constants: Constants, lossy: Lossy) -> Iterator[_Change]:
    """Yield what is to be changed; lookups first, so that a tied matmul finds their table."""
    readers = sorted(
        float_reads(exported, constants), key=lambda reader: reader[1].consumer is not Consumer.GATHER
    )
    known: dict[object, tuple[str, Grid | None]] = {}
    tables: dict[object, tuple[str, Grid | None]] = {}
    for name, site in readers:
        looked_up = site.consumer is Consumer.GATHER
        setting = lossy.setting_of(name, looked_up=looked_up)
        source = _matrix(site, constants) if setting is not None or (lossy.tie and not looked_up) else None
        if source is None:
            continue
        identity = content(tensor(source))
        if setting is not None:
            key = (identity, setting)
            if key not in known:
                known[key] = (str(setting), quantized(source, setting, _dtype(site)))
            made = known[key]
            if looked_up:
                tables[identity] = made
        else:
            made = tables.get(identity, ("", None))
        if made[1] is not None:
            yield _Change(site=site, name=name, how=made[0], grid=made[1])


def _matrix(site: Site, constants: Constants) -> Array | None:
    """The float table [rows, columns] of a site, None where it is no matrix of floats."""
    value = None if site.operand is None else site.operand.meta["val"]
    if value is None or value.ndim != 2 or not value.is_floating_point():
        return None
    rows = value.shape[1 if site.transposed else 0]
    return np.ascontiguousarray(original_rows(site, constants)(0, rows))


def _dtype(site: Site) -> ScalarType:
    return scalar_type(site.operand.meta["val"].dtype)  # type: ignore[union-attr]


def _scale_changes(exported: ExportedProgram, constants: Constants) -> Iterator[_Change]:
    """Yield the sites of looked-up tables whose scales are no halves, with scales that are."""
    for table in survey(exported, constants):
        grids = [
            site.grid for site in table.sites if site.consumer is Consumer.GATHER and site.grid is not None
        ]
        if not grids or all(halves(grid.scales) is not None for grid in grids):
            continue
        for site in table.sites:
            if site.grid is not None:
                scales = in_halves(site.grid.scales.astype(np.float32))
                yield _Change(
                    site=site, name=table.name, how=HALF_SCALES, grid=replace(site.grid, scales=scales)
                )


def _changed(exported: ExportedProgram, constants: Constants, changes: list[_Change]) -> Result:
    if not changes:
        return exported, ()
    editor, losses = GraphEditor(exported), {}
    for change in changes:
        with editor.before(change.site.node):
            editor.replace(change.site.node, _reading(editor, change))
        if change.name not in losses:
            losses[change.name] = Changed(name=change.name, how=change.how, loss=_lost(change, constants))
    return editor.finish(), tuple(losses.values())


def _lost(change: _Change, constants: Constants) -> Loss:
    grid = change.grid
    return loss(original_rows(change.site, constants)(0, grid.rows), grid.rebuild(0, grid.rows))


def _reading(editor: GraphEditor, change: _Change) -> fx.Node:
    """The site's node again, reading the dequantized table."""
    site, node = change.site, change.site.node
    table = _dequantized(editor, change)
    if site.operand is None:
        return editor.call(aten.embedding.default, table, site.lookups())
    table = editor.call(aten.t.default, table) if site.transposed else table
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: table if n is site.operand else n)
    return editor.call(node.target, *args, **kwargs)


def _dequantized(editor: GraphEditor, change: _Change) -> fx.Node:
    grid, name = change.grid, change.name
    points = None if grid.zero_points is None else editor.constant(tensor(grid.zero_points), f"{name}.points")
    values = editor.constant(tensor(grid.values), name)
    values.meta[NAMED] = name
    return editor.call(
        torch.ops.torchao.dequantize_affine.default,
        values,
        [1, grid.group_size],
        editor.constant(tensor(grid.scales), f"{name}.scales"),
        points,
        TORCH_TYPES[scalar_type(tensor(grid.values).dtype)],
        grid.quant_min,
        grid.quant_max,
        output_dtype=TORCH_TYPES[grid.dtype],
    )


def settings_of(exported: ExportedProgram) -> Iterator[WhatIf]:
    """Yield what each table would take and lose: floats at some settings, the scales of lookups as halves."""
    constants, seen = Constants(exported), set()
    for name, site in float_reads(exported, constants):
        source = None if name in seen else _matrix(site, constants)
        seen.add(name)
        if source is not None:
            yield from what_if(name, source, _dtype(site), looked_up=site.consumer is Consumer.GATHER)
    changes: dict[str, list[_Change]] = {}
    for change in _scale_changes(exported, constants):
        changes.setdefault(change.name, []).append(change)
    yield from (_with_half_scales(of, constants) for of in changes.values())


def _with_half_scales(changes: list[_Change], constants: Constants) -> WhatIf:
    """A quantized table whose lookups read their scales as halves; matmuls have their own, as floats."""
    grid = changes[0].grid
    values = grid.values.size if changes[0].grid.bits > _PACKED else -(-grid.values.size // 2)
    kept = FLOAT if any(change.site.consumer is Consumer.MATMUL for change in changes) else 0
    before, after = (values + grid.scales.size * (scale + kept) for scale in (FLOAT, HALF))
    return WhatIf(
        name=changes[0].name,
        setting=HALF_SCALES,
        before=before,
        after=after,
        loss=_lost(changes[0], constants),
        option="--scales half",
    )


def outputs_lost(before: ExportedProgram, after: ExportedProgram) -> tuple[Loss, ...]:
    """What each float output of a changed program lost on the program's example inputs; nothing where it has none."""
    if before.example_inputs is None:
        return ()
    args, kwargs = before.example_inputs
    leaves = torch.utils._pytree.tree_leaves  # noqa: SLF001 - torch's own way to flatten outputs
    with torch.no_grad():
        old, new = (leaves(program.module()(*args, **kwargs)) for program in (before, after))
    return tuple(
        loss(array(left).reshape(1, -1), array(right).reshape(1, -1))
        for left, right in zip(old, new, strict=True)
        if isinstance(left, torch.Tensor) and left.is_floating_point()
    )
