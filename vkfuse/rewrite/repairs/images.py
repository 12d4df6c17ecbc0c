"""What kernels and shaders do to one image, for batches, volumes and sequences of it, and pools that nothing has.

ExecuTorch delegates convolutions of a single image, no transposed one of a sequence, and has none of volumes at all. No
library has a kernel of ``adaptive_max_pool`` and ``max_pool3d``: the largest of a window is the largest along one of its
sides of what is largest along the others. In channels_last, a pool to one pixel is decomposed to a view by strides, which
no runtime has; it is a mean.
"""

import operator
from typing import Final

import torch
from torch import fx
from torch.utils._sympy.value_ranges import bound_sympy

from vkfuse.rewrite.arguments import argument, is_dynamic
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.windows import each, window_of
from vkfuse.runtime.device import TEXTURE

aten = torch.ops.aten

_MOST_SLICES: Final = 64
_END: Final = (1 << 63) - 1


@replaces(
    *(aten.conv2d.default, aten.conv2d.padding),
    code="batch-as-one-image",
    detail="the images of a batch one above the other",
)
def batches_as_one_image(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Convolve the images of a batch one above the other, of a height that the stride divides, padding between them."""
    x, weight, bias = (argument(node, i, name) for i, name in enumerate(("input", "weight", "bias")))
    window = window_of(node)
    (above, below), (left, right) = window.pads
    if x.meta["val"].ndim != weight.meta["val"].ndim or not _fit_in_one(x, above + below + window.stride[0]):
        return None
    (_, channels, height, width), (_, out, rows, columns) = x.meta["val"].shape, node.meta["val"].shape
    stride, reach = window.stride[0], window.dilation[0] * (window.kernel[0] - 1) + 1
    tall = -(-(height + above + below) // stride) * stride
    around = [left, right] if left != right else [0, 0]
    if any(around) or tall > height:
        x = editor.call(aten.constant_pad_nd.default, x, [*around, above, tall - height - above], 0.0)
    turned = editor.call(aten.permute.default, x, [1, 0, 2, 3])
    whole = editor.call(aten.reshape.default, turned, [1, channels, -1, width + sum(around)])
    if reach > stride:
        whole = editor.call(aten.constant_pad_nd.default, whole, [0, 0, 0, reach - stride], 0.0)
    lists = list(window.stride), [0, 0 if any(around) else left], list(window.dilation)
    done = editor.call(aten.conv2d.default, whole, weight, bias, *lists, window.groups)
    apart = editor.call(aten.reshape.default, done, [out, -1, tall // stride, columns])
    if tall // stride > rows:
        apart = editor.call(aten.slice.Tensor, apart, 2, 0, rows)
    return editor.call(aten.permute.default, apart, [1, 0, 2, 3])


def _fit_in_one(x: fx.Node, more: int) -> bool:
    """Whether there may be several images, of known sizes, and all of them, each `more` high, are no higher than one."""
    batch, _, height, width = x.meta["val"].shape
    if not (isinstance(height, int) and isinstance(width, int)) or batch == 1:
        return False
    most = (
        batch
        if isinstance(batch, int)
        else bound_sympy(batch.node.expr, batch.node.shape_env.var_to_range).upper
    )
    return bool(most * (height + more) <= TEXTURE[1])


@replaces(aten.conv3d.default, code="volumes-by-slices", detail="kernels and shaders convolve images")
def volumes_by_slices(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Write a convolution of one static volume as one of images for each depth of its result."""
    x, constant, bias = (argument(node, i, name) for i, name in enumerate(("input", "weight", "bias")))
    one = not is_dynamic(x) and x.meta["val"].shape[0] == 1 and x.meta["val"].ndim == node.meta["val"].ndim
    window = window_of(node)
    if not one or window.groups != 1 or constant not in editor.constants:
        return None
    (_, channels, depth, *image), (_, out, many, *rest) = x.meta["val"].shape, node.meta["val"].shape
    if many > _MOST_SLICES:
        return None
    weight = editor.constants.value(constant)
    flat = editor.constant(weight.flatten(1, 2).contiguous(), f"slices.{node.name}")
    stride, dilation, padding = window.stride, window.dilation, [before for before, _ in window.pads]
    x = editor.call(aten.reshape.default, x, [channels, depth, *image])
    if padding[0]:
        x = editor.call(aten.constant_pad_nd.default, x, [0, 0, 0, 0, padding[0], padding[0]], 0.0)
    kernel, slices = weight.shape[2], []
    across = [list(of[1:]) for of in (stride, padding, dilation)]
    for start in range(0, many * stride[0], stride[0]):
        end = start + dilation[0] * (kernel - 1) + 1
        part = editor.call(aten.slice.Tensor, x, 1, start, end, dilation[0])
        one_image = editor.call(aten.reshape.default, part, [1, channels * kernel, *image])
        done = editor.call(aten.conv2d.default, one_image, flat, bias, *across)
        slices.append(editor.call(aten.reshape.default, done, [out, 1, *rest]))
    whole = editor.call(aten.cat.default, slices, 1)
    return editor.call(aten.reshape.default, whole, [1, out, many, *rest])


@replaces(aten.conv_transpose1d.default, code="convolution-written-out", detail="transposed along a sequence")
def transposed_sequences(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Replace each transposed convolution of one static sequence by one of an image, of others by a plain one.

    The runtime does not resize what is transposed. Zeros between the values, as far apart as the stride, make it a
    convolution by the weight in reverse.
    """
    x, constant, bias = (argument(node, i, name) for i, name in enumerate(("input", "weight", "bias")))
    if constant not in editor.constants or x.meta["val"].ndim != constant.meta["val"].ndim:
        return None
    weight = editor.constants.value(constant)  # [in, out / groups, kernel]
    names = ("stride", 1), ("padding", 0), ("output_padding", 0), ("groups", 1), ("dilation", 1)
    numbers = (each(argument(node, i, *name), 1)[0] for i, name in enumerate(names, 3))
    stride, padding, further, groups, dilation = numbers
    if not is_dynamic(x) and x.meta["val"].shape[0] == 1:
        image = editor.call(aten.unsqueeze.default, x, 2)
        flat = editor.constant(weight[:, :, None].contiguous(), f"image.{node.name}")
        lists = [1, stride], [0, padding], [0, further]
        done = editor.call(aten.conv_transpose2d.input, image, flat, bias, *lists, groups, [1, dilation])
        return editor.call(aten.squeeze.dim, done, 2)
    if stride > 1:
        apart = editor.call(aten.unsqueeze.default, x, -1)
        apart = editor.call(aten.constant_pad_nd.default, apart, [0, stride - 1], 0.0)
        x = editor.call(aten.flatten.using_ints, apart, -2)
    before = dilation * (weight.shape[2] - 1) - padding
    x = _ended(editor, x, before, before + further - (stride - 1))
    turned = weight.view(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1).flip(-1).contiguous()
    reverse = editor.constant(turned, f"reverse.{node.name}")
    return editor.call(aten.conv1d.default, x, reverse, bias, [1], [0], [dilation], groups)


def _ended(editor: GraphEditor, x: fx.Node, before: int, after: int) -> fx.Node:
    """`x` with zeros at both ends of the last dimension, or without what is there where a number is negative."""
    if min(before, after) < 0:
        x = editor.call(aten.slice.Tensor, x, -1, max(0, -before), after if after < 0 else _END)
    zeros = [max(0, before), max(0, after)]
    return editor.call(aten.constant_pad_nd.default, x, zeros, 0.0) if any(zeros) else x


@replaces(aten.adaptive_avg_pool2d.default, code="pools-as-means", detail="the mean of a whole image")
def means_of_whole_images(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Replace each pool of images to one pixel by a mean."""
    if list(argument(node, 1, "output_size")) != [1, 1]:
        return None
    return editor.call(aten.mean.dim, argument(node, 0, "self"), [-2, -1], True)


_ADAPTIVE: Final = (aten.adaptive_max_pool1d.default, aten.adaptive_max_pool2d.default)


@replaces(operator.getitem, code="pools-as-maxima", detail="no library has a kernel of adaptive maxima")
def adaptive_pools_as_maxima(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Replace the values of each adaptive maximum over static sizes by maxima of slices (aten::adaptive_max_pool2d)."""
    pool, which = node.args
    if not isinstance(pool, fx.Node) or pool.target not in _ADAPTIVE or which != 0:
        return None
    x, wanted = argument(pool, 0, "self"), argument(pool, 1, "output_size")
    sizes = x.meta["val"].shape[-len(wanted) :]
    if not all(isinstance(size, int) for size in sizes) or sum(wanted) > _MOST_SLICES:
        return None
    for dim, (size, many) in enumerate(zip(sizes, wanted, strict=True), -len(wanted)):
        windows = [(j * size // many, -((j + 1) * size // -many)) for j in range(many)]
        parts = [editor.call(aten.slice.Tensor, x, dim, low, high) for low, high in windows]
        rows = [editor.call(aten.amax.default, part, [dim], True) for part in parts]
        x = rows[0] if many == 1 else editor.call(aten.cat.default, rows, dim)
    return x  # type: ignore[no-any-return]


@replaces(
    aten.max_pool3d.default,
    code="volumes-as-images",
    detail="a pool of the images, then one along the depth",
)
def volumes_as_images(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Replace each maximum pool of static volumes [batch, channels, depth, height, width] by two of images."""
    source = argument(node, 0, "self")
    if is_dynamic(source) or source.meta["val"].ndim != 5:
        return None
    batch, channels, depth, high, wide = source.meta["val"].shape
    *_, out, rows, columns = node.meta["val"].shape
    kernel = each(argument(node, 1, "kernel_size"), 3)
    stride = each(argument(node, 2, "stride", []) or kernel, 3)
    padding, dilation = (each(argument(node, i, name, unit), 3) for i, name, unit in _AFTER_STRIDE)
    ceil = argument(node, 5, "ceil_mode", default=False)
    lists = kernel, stride, padding, dilation
    images = editor.call(aten.reshape.default, source, [batch, channels * depth, high, wide])
    across = editor.call(aten.max_pool2d.default, images, *(list(of[1:]) for of in lists), ceil)
    deep = editor.call(aten.reshape.default, across, [batch, channels, depth, rows * columns])
    along = ([of[0], unit] for of, unit in zip(lists, (1, 1, 0, 1), strict=True))
    flat = editor.call(aten.max_pool2d.default, deep, *along, ceil)
    return editor.call(aten.reshape.default, flat, [batch, channels, out, rows, columns])


_AFTER_STRIDE: Final = ((3, "padding", 0), (4, "dilation", 1))
