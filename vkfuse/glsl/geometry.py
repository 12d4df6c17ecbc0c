"""How the runtime dispatches the shader: sizes in WHCN order, global and local work group sizes."""

from math import prod
from typing import TypeAlias

from vkfuse.glsl.variants import COLUMNS_PER_INVOCATION
from vkfuse.multiples import ceil_div

Size3: TypeAlias = tuple[int, int, int]
Size4: TypeAlias = tuple[int, int, int, int]


def output_sizes(index_shape: tuple[int, ...], embed_dim: int) -> Size4:
    """Sizes of the output in WHCN order; `index_shape` has at most three dimensions."""
    if len(index_shape) > 3:
        raise ValueError(f"indices of {len(index_shape)} dimensions: the runtime takes at most 3")
    channels, rows, columns = (1,) * (3 - len(index_shape)) + index_shape
    return embed_dim, columns, rows, channels


def global_size(sizes: Size4) -> Size3:
    """Invocations on each axis: one for 32 columns of a row (`pick_embedding_q4gsw_global_wg_size`)."""
    return sizes[0] // COLUMNS_PER_INVOCATION, sizes[1], sizes[2] * sizes[3]


def local_size(global_: Size3) -> Size3:
    """The runtime's local size for a global one (`ComputeGraph::create_local_wg_size`).

    It looks the extents up by axis where they are in the order of the sizes: the same, but where all three change places.
    """
    axes = _axes_by_size(global_)
    _, middle, smallest = (global_[axis] for axis in axes)
    if smallest != 1:
        extent = (8, max(1, min(4, middle)), max(1, min(2, smallest)))
    elif middle == 1:
        extent = (64, 1, 1)
    elif middle % 4 == 0:
        extent = (16, 4, 1)
    else:
        extent = (32, 2, 1)
    return extent[axes[0]], extent[axes[1]], extent[axes[2]]


def _axes_by_size(global_: Size3) -> list[int]:
    """Axes from the largest size to the smallest; equal ones stay as the runtime's three swaps leave them."""
    axes = [0, 1, 2]
    for first in (0, 1, 0):
        if global_[axes[first]] < global_[axes[first + 1]]:
            axes[first], axes[first + 1] = axes[first + 1], axes[first]
    return axes


def work_groups(global_: Size3, local: Size3) -> Size3:
    """Work groups on each axis; none where an axis is empty."""
    if prod(global_) == 0:
        return 0, 0, 0
    x, y, z = (ceil_div(size, step) for size, step in zip(global_, local, strict=True))
    return x, y, z
