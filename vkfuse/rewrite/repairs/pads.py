"""What goes over an edge, as a concatenation of slices: padding with the tensor's own values, and rolls.

Decomposed, circular padding is an empty tensor that slices are written into, which leaves the delegate: no runtime has
``slice_scatter``. The others become indices along a later axis, computed anew with each call.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import fx, ops

from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.traced import END

aten = ops.aten

_MOST: Final = 16  # copies of an edge


@replaces(aten.pad.default, code="padding-concatenated", detail="what is repeated, concatenated")
def pads_as_concatenation(x: torch.Tensor, pad: Sequence[int], mode: str) -> torch.Tensor | None:
    """Replace each padding by the other end, by a reflection, or by few copies of the edge: static, positive widths."""
    most = _MOST if mode == "replicate" else END
    if mode not in _BEYOND or not all(type(n) is int and 0 <= n <= most for n in pad):
        return None
    for i in range(0, len(pad), 2):
        dimension, (before, after) = x.ndim - 1 - i // 2, pad[i : i + 2]
        front = _BEYOND[mode](x, dimension, -before) if before else []
        back = _BEYOND[mode](x, dimension, after) if after else []
        if front or back:
            x = torch.cat([*front, x, *back], dimension)
    return x


def _other_end(x: torch.Tensor, dimension: int, width: int) -> list[torch.Tensor]:
    """What stands in front of x (a negative width) or behind it: the values of its other end."""
    return [aten.slice.Tensor(x, dimension, *((width, END) if width < 0 else (0, width)))]


def _mirror(x: torch.Tensor, dimension: int, width: int) -> list[torch.Tensor]:
    """The values beside the edge, which itself is not repeated, in reverse."""
    part = aten.slice.Tensor(x, dimension, *((1, 1 - width) if width < 0 else (-1 - width, -1)))
    return [part if abs(width) == 1 else part.flip([dimension])]


def _edge(x: torch.Tensor, dimension: int, width: int) -> list[torch.Tensor]:
    return [aten.slice.Tensor(x, dimension, *((0, 1) if width < 0 else (-1, END)))] * abs(width)


_BEYOND: Final = {"circular": _other_end, "reflect": _mirror, "replicate": _edge}


@replaces(aten.roll.default, code="rolls-concatenated", detail="both parts, the other way round")
def rolls_as_concatenation(
    node: fx.Node, x: torch.Tensor, shifts: Sequence[int], dims: Sequence[int]
) -> torch.Tensor | None:
    """Replace each roll along static dimensions."""
    sizes = [node.meta["val"].shape[d] for d in dims]
    if not sizes or not all(type(n) is int for n in (*sizes, *shifts)) or 0 in sizes:
        return None
    for dimension, shift, size in zip(dims, shifts, sizes, strict=True):
        if shift % size:
            ends = (-(shift % size), END), (0, -(shift % size))
            x = torch.cat([aten.slice.Tensor(x, dimension, *end) for end in ends], dimension)
    return x
