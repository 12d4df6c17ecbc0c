"""What kernels and shaders do to one image, for batches, volumes and sequences of it, and pools that nothing has.

ExecuTorch delegates convolutions of a single image, no transposed one of a sequence, and has none of volumes at all. No
library has a kernel of ``adaptive_max_pool`` and ``max_pool3d``: the largest of a window is the largest along one of its
sides of what is largest along the others. In channels_last, a pool to one pixel is decomposed to a view by strides, which
no runtime has; it is a mean.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import fx
from torch.utils._sympy.value_ranges import bound_sympy

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import is_dynamic, operand, operands
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.windows import each, window_of
from vkfuse.runtime.device import TEXTURE

aten = torch.ops.aten

_MOST_SLICES: Final = 64


@replaces(
    *(aten.conv2d.default, aten.conv2d.padding),
    code="batch-as-one-image",
    detail="the images of a batch one above the other",
)
def batches_as_one_image(
    node: fx.Node, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor | None:
    """Convolve the images of a batch one above the other, of a height that the stride divides, padding between them."""
    window = window_of(node)
    (above, below), (left, right) = window.pads
    stride, reach = window.stride[0], window.dilation[0] * (window.kernel[0] - 1) + 1
    if x.ndim != weight.ndim or not _fit_in_one(x.shape, above + below + stride):
        return None
    (_, channels, height, width), (_, out, rows, columns) = x.shape, node.meta["val"].shape
    tall = -(-(height + above + below) // stride) * stride
    around = [left, right] if left != right else [0, 0]
    if any(around) or tall > height:
        x = torch.constant_pad_nd(x, [*around, above, tall - height - above], 0.0)
    whole = x.permute([1, 0, 2, 3]).reshape([1, channels, -1, width + sum(around)])
    if reach > stride:
        whole = torch.constant_pad_nd(whole, [0, 0, 0, reach - stride], 0.0)
    lists = list(window.stride), [0, 0 if any(around) else left], list(window.dilation)
    apart = torch.conv2d(whole, weight, bias, *lists, window.groups).reshape(
        [out, -1, tall // stride, columns]
    )
    if tall // stride > rows:
        apart = aten.slice.Tensor(apart, 2, 0, rows)
    return apart.permute([1, 0, 2, 3])


def _fit_in_one(shape: torch.Size, more: int) -> bool:
    """Whether there may be several images, of known sizes, and all of them, each `more` high, are no higher than one."""
    batch, _, height, width = shape
    if not (isinstance(height, int) and isinstance(width, int)) or batch == 1:
        return False
    most = (
        batch
        if isinstance(batch, int)
        else bound_sympy(batch.node.expr, batch.node.shape_env.var_to_range).upper
    )
    return bool(most * (height + more) <= TEXTURE[1])


@replaces(aten.conv3d.default, code="volumes-by-slices", detail="kernels and shaders convolve images")
def volumes_by_slices(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, weight: fx.Node, bias: torch.Tensor | None
) -> torch.Tensor | None:
    """Write a convolution of one static volume as one of images for each depth of its result."""
    one = not is_dynamic(x) and x.shape[0] == 1 and x.ndim == node.meta["val"].ndim
    window = window_of(node)
    if not one or window.groups != 1 or weight not in editor.constants:
        return None
    (_, channels, depth, *image), (_, out, many, *rest) = x.shape, node.meta["val"].shape
    if many > _MOST_SLICES:
        return None
    flat = editor.stored(editor.constants.value(weight).flatten(1, 2).contiguous(), f"slices.{node.name}")
    stride, dilation, padding = window.stride, window.dilation, [before for before, _ in window.pads]
    x = x.reshape([channels, depth, *image])
    if padding[0]:
        x = torch.constant_pad_nd(x, [0, 0, 0, 0, padding[0], padding[0]], 0.0)
    across, slices = [list(of[1:]) for of in (stride, padding, dilation)], list[torch.Tensor]()
    for start in range(0, many * stride[0], stride[0]):
        end = start + dilation[0] * (window.kernel[0] - 1) + 1
        part = aten.slice.Tensor(x, 1, start, end, dilation[0])
        one_image = part.reshape([1, channels * window.kernel[0], *image])
        slices.append(aten.conv2d.default(one_image, flat, bias, *across).reshape([out, 1, *rest]))
    return torch.cat(slices, 1).reshape([1, out, many, *rest])


@replaces(aten.conv_transpose1d.default, code="convolution-written-out", detail="transposed along a sequence")
def transposed_sequences(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, weight: fx.Node, bias: torch.Tensor | None
) -> torch.Tensor | None:
    """Replace each transposed convolution of one static sequence, not dilated, by one of an image, others by a plain one.

    The runtime does not resize what is transposed. Zeros between the values, as far apart as the stride, make it a
    convolution by the weight in reverse.
    """
    if weight not in editor.constants or x.ndim != weight.meta["val"].ndim:
        return None
    kernel = editor.constants.value(weight)  # [in, out / groups, kernel]
    names = ("stride", "padding", "output_padding", "groups", "dilation")
    stride, padding, further, groups, dilation = (each(operand(node, name), 1)[0] for name in names)
    if not is_dynamic(x) and x.shape[0] == dilation == 1:
        flat = editor.stored(kernel[:, :, None].contiguous(), f"image.{node.name}")
        lists = [1, stride], [0, padding], [0, further]
        image = torch.conv_transpose2d(x.unsqueeze(2), flat, bias, *lists, groups)
        return image.squeeze(2)
    if stride > 1:
        x = torch.constant_pad_nd(x.unsqueeze(-1), [0, stride - 1], 0.0).flatten(-2)
    before = dilation * (kernel.shape[2] - 1) - padding
    x = _ended(x, before, before + further - (stride - 1))
    turned = kernel.view(groups, -1, *kernel.shape[1:]).transpose(1, 2).flatten(0, 1).flip(-1).contiguous()
    reverse = editor.stored(turned, f"reverse.{node.name}")
    return torch.conv1d(x, reverse, bias, [1], [0], [dilation], groups)


def _ended(x: torch.Tensor, before: int, after: int) -> torch.Tensor:
    """`x` with zeros at both ends of the last dimension, or without what is there where a number is negative."""
    if min(before, after) < 0:
        x = x[..., max(0, -before) : after if after < 0 else None]
    zeros = [max(0, before), max(0, after)]
    return torch.constant_pad_nd(x, zeros, 0.0) if any(zeros) else x


@replaces(aten.adaptive_avg_pool2d.default, code="pools-as-means", detail="the mean of a whole image")
def means_of_whole_images(x: torch.Tensor, output_size: Sequence[int]) -> torch.Tensor | None:
    """Replace each pool of images to one pixel by a mean."""
    return x.mean([-2, -1], True) if list(output_size) == [1, 1] else None


@replaces(
    *(aten.adaptive_max_pool1d.default, aten.adaptive_max_pool2d.default),
    code="pools-as-maxima",
    detail="no library has a kernel of adaptive maxima",
)
def adaptive_pools_as_maxima(which: int, x: torch.Tensor, output_size: Sequence[int]) -> torch.Tensor | None:
    """Replace the values of each adaptive maximum over static sizes by maxima of slices (aten::adaptive_max_pool2d)."""
    sizes = x.shape[-len(output_size) :]
    if which or not all(isinstance(size, int) for size in sizes) or sum(output_size) > _MOST_SLICES:
        return None
    for dim, (size, many) in enumerate(zip(sizes, output_size, strict=True), -len(output_size)):
        windows = [(j * size // many, -((j + 1) * size // -many)) for j in range(many)]
        rows = [aten.slice.Tensor(x, dim, *window).amax([dim], True) for window in windows]
        x = rows[0] if many == 1 else torch.cat(rows, dim)
    return x


@replaces(
    aten.max_pool3d.default,
    code="volumes-as-images",
    detail="a pool of the images, then one along the depth",
)
def volumes_as_images(node: fx.Node, x: torch.Tensor, ceil_mode: bool) -> torch.Tensor | None:
    """Replace each maximum pool of volumes [batch, channels, depth, height, width], of static sizes but for the batch."""
    given = {name: operand(node, name) for name in ("kernel_size", "stride", "padding", "dilation")}
    lists = [each(of or given["kernel_size"], 3) for of in given.values()]
    return _pooled(node, x, aten.max_pool2d.default, lists, (1, 1, 0, 1), ceil_mode)


@replaces(
    aten.avg_pool3d.default, code="volumes-as-images", detail="a pool of the images, then one along the depth"
)
def mean_volumes_as_images(node: fx.Node, x: torch.Tensor) -> torch.Tensor | None:
    """Replace each mean pool of such volumes that counts what it pads: the mean of means."""
    given = operands(node)
    padded = any(each(given["padding"], 3))
    if given["ceil_mode"] or given["divisor_override"] or (padded and not given["count_include_pad"]):
        return None
    lists = [each(given[name] or given["kernel_size"], 3) for name in ("kernel_size", "stride")]
    return _pooled(node, x, aten.avg_pool2d.default, [*lists, each(given["padding"], 3)], (1, 1, 0))


def _pooled(
    node: fx.Node,
    x: torch.Tensor,
    pool: Any,
    lists: Sequence[Sequence[int]],
    units: Sequence[int],
    *modes: bool,
) -> torch.Tensor | None:
    """Pools of each image by the lists' last two numbers, then along the depth by the first beside the `units`."""
    if x.ndim != 5 or any(isinstance(size, torch.SymInt) for size in x.shape[1:]):
        return None
    _, channels, depth, high, wide = x.shape
    *_, out, rows, columns = node.meta["val"].shape
    images = x.reshape([-1, channels * depth, high, wide])
    across = pool(images, *(list(of[1:]) for of in lists), *modes)
    deep = across.reshape([-1, channels, depth, rows * columns])
    along = ([of[0], unit] for of, unit in zip(lists, units, strict=True))
    flat: torch.Tensor = pool(deep, *along, *modes)
    return flat.reshape([-1, channels, out, rows, columns])
