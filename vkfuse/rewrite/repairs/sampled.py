"""Images read between their pixels: at other sizes, and at places that a grid gives, otherwise than shaders do.

An image of another size is a product with a matrix along its height and one along its width, whichever way it is
interpolated: the runtime has the nearest pixel of whole factors and bilinear ones (Upsample.cpp). It samples grids
from the first pixel's centre to the last one's, and behind these their values (GridSampler2d.cpp); with a border of
zeros, and the grid scaled, that is every other way to sample between pixels.
"""

from typing import Any, Final

import torch
from torch import fx, ops

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.repairs.transforms import multiplied_along

aten = ops.aten

_NEAREST, _BILINEAR = aten.upsample_nearest2d.vec, aten.upsample_bilinear2d.vec
_RESAMPLED: Final = (
    *(_NEAREST, aten._upsample_nearest_exact2d.vec),  # noqa: SLF001 - the operator's name
    *(_BILINEAR, aten.upsample_bicubic2d.vec),
    *(aten._upsample_bilinear2d_aa.vec, aten._upsample_bicubic2d_aa.vec),  # noqa: SLF001
    *(aten._upsample_bilinear2d_aa.default, aten._upsample_bicubic2d_aa.default),  # noqa: SLF001
)
_LARGEST: Final = 2**24  # pixels of the images that matrices are read from
_ZEROS, _EDGE = range(2)  # padding_mode


@replaces(*_RESAMPLED, code="images-resampled", detail="no shader interpolates so: a product along each side")
def resampled_by_matrices(editor: GraphEditor, node: fx.Node, x: torch.Tensor) -> torch.Tensor | None:
    """Resample each image of static height and width by what its operator does to the columns of a unit matrix."""
    target: Any = node.target
    before, after = x.shape[-2:], node.meta["val"].shape[-2:]
    if not all(isinstance(size, int) for size in (*before, *after)) or node in editor.constants:
        return None
    high, wide = map(int, before)
    if _has_shader(node, [*zip(before, after, strict=True)]) or max(high, wide) * high * wide > _LARGEST:
        return None
    units = torch.eye(high)[:, :, None].expand(-1, -1, wide), torch.eye(wide)[:, None].expand(-1, high, -1)
    rows, columns = (target(of[None], *node.args[1:], **node.kwargs)[0] for of in units)
    return _along(editor, _along(editor, x, -2, rows[:, :, 0]), -1, columns[:, 0])


def _has_shader(node: fx.Node, sides: list[tuple[int, int]]) -> bool:
    """Whether the runtime has an operator of these sizes: the factors are given as they are, to the nearest pixel whole."""
    if node.target not in {_NEAREST, _BILINEAR}:
        return False
    given = operand(node, "scale_factors") or (new / old for old, new in sides)
    exact = all(old * factor == new for (old, new), factor in zip(sides, given, strict=True))
    return exact and (node.target == _BILINEAR or not any(new % old for old, new in sides))


def _along(editor: GraphEditor, x: torch.Tensor, dim: int, weights: torch.Tensor) -> torch.Tensor:
    """`x` with its places along `dim` weighed by `weights` [places, new places]; a slice where they are evenly chosen."""
    chosen: list[int] = weights.argmax(0).tolist()
    step = max(chosen[1] - chosen[0], 1) if len(chosen) > 1 else 1
    evenly = [*range(chosen[0], chosen[-1] + 1, step)] == chosen
    if evenly and torch.equal(torch.eye(len(weights))[:, chosen], weights):
        return aten.slice.Tensor(x, dim, chosen[0], chosen[-1] + 1, step)  # type: ignore[no-any-return]
    return multiplied_along(x, dim % x.ndim, editor.stored(weights.to(x.dtype).contiguous(), "weights"))


@replaces(
    aten.grid_sampler_2d.default, code="grids-scaled", detail="the runtime samples from centre to centre"
)
def grids_from_centre_to_centre(
    editor: GraphEditor,
    x: torch.Tensor,
    grid: torch.Tensor,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
) -> torch.Tensor | None:
    """Sample between pixels from the first one's centre to the last one's, of zeros around the image where it has these."""
    aligned, zeros = padding_mode == _EDGE and align_corners, padding_mode == _ZEROS
    reach, sizes = 1 - align_corners, [*x.shape[-1:-3:-1]]
    if (
        interpolation_mode
        or padding_mode > _EDGE
        or aligned
        or not all(type(n) is int and n + zeros > 1 for n in sizes)
    ):
        return None
    scales = [(n - 1 + reach) / (n - 1 + 2 * zeros) for n in sizes]
    scaled = grid * editor.stored(torch.tensor(scales, dtype=grid.dtype), "scales")
    padded = torch.constant_pad_nd(x, [1, 1, 1, 1], 0.0) if zeros else x
    return aten.grid_sampler_2d.default(padded, scaled, 0, _EDGE, True)  # type: ignore[no-any-return]
