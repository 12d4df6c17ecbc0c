"""4-bit matmuls on an input of one matrix, as the runtime computes them: what has more dimensions is viewed as rows.

A size of -1 in a view follows the sizes that a run has (View.cpp of backends/vulkan in ExecuTorch 1.5), so that one
dimension may be dynamic; where more than one has another size than 1, none may.
"""

from collections.abc import Sequence
from math import prod
from typing import Final, TypeGuard

from vkfuse.patch.graphs import GraphEdit
from vkfuse.pte.vulkan import IntList, OperatorCall, ValueList, VkTensor, VkValue, VulkanGraph
from vkfuse.runtime.operators.moves import VIEW

_MOST_VALUES: Final = 1 << 31  # a shader counts them in 32 bits


def as_rows(edit: GraphEdit, graph: VulkanGraph, call: OperatorCall, *, dynamic: bool) -> list[OperatorCall]:
    """A matmul's call on rows, its result viewed back; nothing where the sizes back cannot be told."""
    source, out = graph.values[call.args[0]], graph.values[call.args[-1]]
    if not is_batch(source) or not is_batch(out):
        return []
    back = sizes_back(out.dims, dynamic=dynamic)
    if back is None:
        return []
    rows, product = _matrix(edit, source), _matrix(edit, out)
    return [
        _viewed(edit, call.args[0], (-1, source.dims[-1]), rows),
        edit.call(call.name, rows, *call.args[1:-1], product),
        _viewed(edit, product, back, call.args[-1]),
    ]


def sizes_back(dims: Sequence[int], *, dynamic: bool) -> tuple[int, ...] | None:
    """Sizes of a view that end in `dims`, of which those before the last may be smaller in a run where `dynamic`."""
    if not dynamic:
        return tuple(dims)
    open_ = [at for at, size in enumerate(dims[:-1]) if size != 1]
    if len(open_) > 1:
        return None
    return tuple(-1 if at in open_ else size for at, size in enumerate(dims))


def _matrix(edit: GraphEdit, like: VkTensor) -> int:
    """A tensor of the same numbers as rows."""
    return edit.tensor(like, dims=(prod(like.dims[:-1]), like.dims[-1]))


def is_batch(value: VkValue) -> TypeGuard[VkTensor]:
    """Whether a value is a tensor that has rows, and no more numbers than a texture or buffer may hold."""
    return isinstance(value, VkTensor) and bool(value.dims) and prod(value.dims) <= _MOST_VALUES


def _viewed(edit: GraphEdit, source: int, sizes: tuple[int, ...], out: int) -> OperatorCall:
    return edit.call(VIEW, source, edit.value(IntList(sizes)), out)


def quantized_as_rows(
    edit: GraphEdit, graph: VulkanGraph, position: int, *, dynamic: bool
) -> dict[int, list[OperatorCall]]:
    """The choice of parameters at `position`, and the matmuls that it is for, on rows, by their positions.

    Nothing where something else reads the parameters, or the sizes back cannot be told.
    """
    choice = graph.chain[position]
    source, made = graph.values[choice.args[0]], graph.values[choice.args[-1]]
    block = graph.values[choice.args[2]]
    if not (is_batch(source) and isinstance(made, ValueList) and isinstance(block, IntList) and block.items):
        return {}
    parameters = [graph.values[index] for index in made.ids]
    readers = [at for at, call in enumerate(graph.chain) if {*made.ids} & {*call.args} and at != position]
    if any(not isinstance(value, VkTensor) for value in parameters):
        return {}
    rows = _matrix(edit, source)
    count = prod(source.dims[:-1])
    ids = tuple(edit.tensor(value, dims=(count,)) for value in parameters if isinstance(value, VkTensor))
    changed = {choice.args[0]: rows, **dict(zip(made.ids, ids, strict=True))}
    args = (rows, choice.args[1], edit.value(IntList((1, block.items[-1]))), *choice.args[3:-1])
    calls = {
        position: [
            _viewed(edit, choice.args[0], (-1, source.dims[-1]), rows),
            edit.call(choice.name, *args, edit.value(ValueList(ids))),
        ]
    }
    for at in readers:
        call = graph.chain[at]
        out = graph.values[call.args[-1]]
        back = sizes_back(out.dims, dynamic=dynamic) if is_batch(out) else None
        if call.args[0] != choice.args[0] or not is_batch(out) or back is None:
            return {}
        product = _matrix(edit, out)
        inner = (changed.get(index, index) for index in call.args[:-1])
        calls[at] = [
            edit.call(call.name, *inner, product),
            _viewed(edit, product, back, call.args[-1]),
        ]
    return calls
