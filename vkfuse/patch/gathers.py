"""CPU instructions that gather rows of bytes and dequantize what was gathered, in place of a lookup in a table of floats.

Portable kernels only, each of which gives its output the sizes of a run. With one scale a row the product promotes bytes to
floats; else the bytes become floats where the rows are to stand, and groups of these are scaled in place, through views.
Source: op_embedding.cpp and op_mul.cpp of kernels/portable, et_view.cpp of kernels/prim_ops in ExecuTorch 1.5.
"""

from collections.abc import Iterable
from dataclasses import replace
from math import prod
from typing import Final

from vkfuse.patch.methods import MethodEdit
from vkfuse.pte.enums import ScalarType
from vkfuse.pte.model import BoxedIntList, KernelCall, Tensor
from vkfuse.pte.values import Bool, Int
from vkfuse.tables.floats import Array, kind_of
from vkfuse.tables.grid import Grid

VIEW: Final = "executorch_prim::et_view.default"
_GATHER: Final = "aten::embedding.out"
_CAST: Final = "dim_order_ops::_to_dim_order_copy.out"
_LESS: Final = "aten::sub.out"
_TIMES: Final = "aten::mul.out"


def rows_like(edit: MethodEdit, indices: int, table: Grid) -> int:
    """Add rows of a table for indices of the method, planned in a place of their own."""
    return _planned(edit, edit.tensor(indices), table.dtype, table.values.shape[1])


def gather_calls(edit: MethodEdit, table: Grid, indices: int, out: int) -> tuple[KernelCall, ...]:
    """The calls that write rows of a table for `indices` to `out`, both values of the method."""
    steps = _Steps(edit, indices)
    rows, scales = steps.gathered(table.values), steps.gathered(table.scales)
    groups, points = table.scales.shape[1], table.zero_points
    if groups == 1 and points is None:
        steps.then(_TIMES, rows, scales, out, out)
        return tuple(steps.calls)
    order = range(len(edit.tensor(out).sizes))
    steps.then(_CAST, rows, edit.value(Bool(value=False)), _integers(edit, order), out, out)
    view = steps.view(out, groups, table.group_size)
    if points is not None:
        less = steps.view(steps.gathered(points), groups, 1)
        steps.then(_LESS, view, less, edit.value(Int(1)), view, view)
    steps.then(_TIMES, view, steps.view(scales, groups, 1), view, view)
    return tuple(steps.calls)


class _Steps:
    """The calls of one lookup, as they are made."""

    def __init__(self, edit: MethodEdit, indices: int) -> None:
        self._edit, self._indices = edit, indices
        self.calls: list[KernelCall] = []

    def then(self, name: str, *args: int) -> None:
        """Add a call."""
        self.calls.append(self._edit.kernel(name, *args))

    def gathered(self, stored: Array) -> int:
        """Gather rows of an array [rows, width]."""
        edit = self._edit
        out = _planned(edit, edit.tensor(self._indices), kind_of(stored), stored.shape[1])
        padding, no = edit.value(Int(-1)), edit.value(Bool(value=False))
        self.then(_GATHER, edit.constant(stored), self._indices, padding, no, no, out, out)
        return out

    def view(self, index: int, groups: int, width: int) -> int:
        """See rows of a planned tensor as [rows, groups, width], at the same place."""
        edit, of = self._edit, self._edit.tensor(index)
        sizes = (prod(of.sizes[:-1]), groups, width)
        made = edit.value(replace(of, sizes=sizes, dim_order=(0, 1, 2)))
        self.then(VIEW, index, _integers(edit, (-1, groups, width)), made)
        return made


def _integers(edit: MethodEdit, numbers: Iterable[int]) -> int:
    """Add a list of integers."""
    return edit.value(BoxedIntList(tuple(edit.value(Int(number)) for number in numbers)))


def _planned(edit: MethodEdit, indices: Tensor, kind: ScalarType, width: int) -> int:
    """Add what is gathered for some indices: [.., width] of a type, in a place of its own."""
    sizes = (*indices.sizes, width)
    rows = replace(
        indices, scalar_type=kind, sizes=sizes, dim_order=tuple(range(len(sizes))), data_buffer_idx=0
    )
    return edit.value(edit.plan.placed(rows))
