"""What kernels and shaders do to one image, for batches, volumes and sequences of it, and pools that nothing has.

ExecuTorch delegates convolutions of a single image, no transposed one of a sequence, and has none of volumes at all. No
library has a kernel of ``adaptive_max_pool`` and ``max_pool3d``: the largest of a window is the largest along one of its
sides of what is largest along the others.
"""

import operator
from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any, Final

import torch
from torch import fx
from torch.utils._sympy.value_ranges import bound_sympy

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import is_dynamic, operand, operands
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.traced import END
from vkfuse.rewrite.windows import Window, each, window_of
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
    at_once = x.ndim == weight.ndim and _fit_in_one(x.shape, sum(window.pads[0]) + window.stride[0])
    if not at_once:
        return None
    if not isinstance(x.shape[0], int) or x.shape[0] <= at_once:
        return _as_one_image(window, node.meta["val"].shape, x, weight, bias)
    parts = (aten.slice.Tensor(x, 0, at, at + at_once) for at in range(0, x.shape[0], at_once))
    return torch.cat([_as_one_image(window, node.meta["val"].shape, part, weight, bias) for part in parts])


def _as_one_image(
    window: Window, shape: torch.Size, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """What is convolved to `shape`, whatever its batch."""
    (above, below), (left, right) = window.pads
    stride, reach = window.stride[0], window.dilation[0] * (window.kernel[0] - 1) + 1
    (_, channels, height, width), (_, out, rows, columns) = x.shape, shape
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


def _fit_in_one(shape: Sequence[Any], more: int) -> int:
    """How many of several images, of known sizes, one is as high as, each `more` high; 0 where there may be others."""
    batch, _, height, width = shape
    if not (isinstance(height, int) and isinstance(width, int)) or batch == 1:
        return 0
    at_once = TEXTURE[1] // (height + more)
    if isinstance(batch, torch.SymInt):
        most = bound_sympy(batch.node.expr, batch.node.shape_env.var_to_range).upper
        return at_once if most <= at_once else 0
    return at_once


@replaces(
    *(aten.conv3d.default, aten.conv3d.padding, aten.conv_transpose3d.input),
    code="volumes-by-slices",
    detail="kernels and shaders convolve images",
)
def volumes_by_slices(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, weight: fx.Node, bias: torch.Tensor | None
) -> torch.Tensor | None:
    """Write a convolution of volumes as the sum of ones of images, all depths of all volumes, one for each of the kernel.

    A transposed one is another over depths of zeros between those that are, by the kernel in reverse.
    """
    window, transposed = window_of(node), node.target is aten.conv_transpose3d.input
    stride, far, ((pad, behind), *across) = window.stride[0], window.dilation[0], window.pads
    batch, channels, depth, *image = [1, 1, 1, *editor.sizes(x)][-5:]
    known = weight in editor.constants and x.ndim == node.meta["val"].ndim == _VOLUMES
    apart = transposed and stride > 1 and any(isinstance(size, fx.Node) for size in image)
    if not known or apart or any(before != behind for before, behind in across):
        return None
    kernel, reach = editor.constants.value(weight), far * (window.kernel[0] - 1)
    lists = [list(of[1:]) for of in (window.stride, [p for p, _ in window.pads], window.dilation)]
    rows, further = x.reshape([batch, channels, depth, -1]), [0, 0, 0]
    if transposed:
        further, kernel, wide = [*each(operand(node, "output_padding"), 3)], kernel.flip(2), rows.shape[-1]
        if stride > 1:
            rows = torch.constant_pad_nd(rows, [0, (stride - 1) * wide], 0.0)
            rows = rows.reshape([batch, channels, -1, wide])
        pad, behind = reach - pad, reach - behind
        further[0], stride = further[0] - (stride - 1), 1
    rows, terms = _ended(rows, pad, behind + further[0], -2), list[torch.Tensor]()
    for start in range(0, reach + 1, far):
        part = _every(rows, 2, start, start - reach, stride)
        images = part.permute([0, 2, 1, 3]).reshape([-1, channels, *image])
        flat = editor.stored(kernel[:, :, start // far].contiguous(), f"slice.{node.name}")
        given = images, flat, None if terms else bias, *lists[:2]
        terms.append(
            aten.conv_transpose2d.input(*given, further[1:], window.groups, lists[2])
            if transposed
            else aten.conv2d.default(*given, lists[2], window.groups)
        )
    return _volumes(editor, reduce(torch.add, terms), batch, node.meta["val"].shape)


_VOLUMES: Final = 5  # dimensions


def _every(x: torch.Tensor, dim: int, start: int, end: int, step: int) -> torch.Tensor:
    """Every so many of a dimension, from a place on to one counted from the end."""
    return aten.slice.Tensor(x, dim, start, end or END, step) if (start, end, step) != (0, 0, 1) else x


def _volumes(editor: GraphEditor, images: torch.Tensor, batch: Any, wanted: Sequence[Any]) -> torch.Tensor:
    """Images [batch * depth, channels, height, width] as volumes [batch, channels, depth, height, width]."""
    _, channels, depth, *image = wanted
    sizes: list[Any] = [
        size if isinstance(size, int) else editor.call(aten.sym_size.int, images, dim)
        for dim, size in enumerate(image, 2)
    ]
    lead = [-1, depth] if isinstance(depth, int) else [batch, -1]
    wide: Any = (
        prod(sizes) if all(isinstance(size, int) for size in sizes) else editor.call(operator.mul, *sizes)
    )
    turned = images.reshape([*lead, channels, wide]).permute([0, 2, 1, 3])
    return turned.reshape([lead[0], channels, lead[1], *sizes])


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
    x = _ended(x, before, before + further - (stride - 1), -1)
    turned = kernel.view(groups, -1, *kernel.shape[1:]).transpose(1, 2).flatten(0, 1).flip(-1).contiguous()
    reverse = editor.stored(turned, f"reverse.{node.name}")
    return torch.conv1d(x, reverse, bias, [1], [0], [dilation], groups)


def _ended(x: torch.Tensor, before: int, after: int, dim: int) -> torch.Tensor:
    """`x` with zeros at both ends of a dimension, from behind, or without what is there where a number is negative."""
    x = _every(x, dim, max(0, -before), min(0, after), 1)
    zeros = [max(0, before), max(0, after)]
    return torch.constant_pad_nd(x, [0, 0] * (-1 - dim) + zeros, 0.0) if any(zeros) else x


@replaces(aten.im2col.default, code="patches-by-slices", detail="no shader gathers an image's patches")
def patches_by_slices(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, kernel_size: Sequence[int]
) -> torch.Tensor | None:
    """Cut static images [batch, channels, height, width] into patches: by views where they tile it, else by slices."""
    if (
        x.ndim != _IMAGES
        or not all(isinstance(size, int) for size in x.shape[1:])
        or node in editor.constants
    ):
        return None
    batch, channels, *image = editor.sizes(x)
    high, wide = kernel_size
    rows, columns, tiles = _patches(node, image)
    if tiles:
        parts = x.reshape([batch, channels, rows, high, columns, wide]).permute([0, 1, 3, 5, 2, 4])
        return parts.reshape([batch, channels * high * wide, rows * columns])
    if high + wide > _MOST_SLICES:
        return None
    (far, across), (above, left), (down, right) = (
        each(operand(node, name), 2) for name in ("dilation", "padding", "stride")
    )
    if above or left:
        x = torch.constant_pad_nd(x, [left, left, above, above], 0.0)
    starts = range(0, high * far, far), range(0, wide * across, across)
    tall = [aten.slice.Tensor(x, 2, at, at + (rows - 1) * down + 1, down) for at in starts[0]]
    whole = torch.cat([part.reshape([-1, 1, rows * x.shape[3]]) for part in tall], 1)
    whole = whole.reshape([-1, rows, x.shape[3]])  # each channel's rows for each row of the patches
    blocks = [aten.slice.Tensor(whole, 2, at, at + (columns - 1) * right + 1, right) for at in starts[1]]
    patches = torch.cat([part.reshape([-1, 1, rows * columns]) for part in blocks], 1)
    return patches.reshape([batch, channels * high * wide, rows * columns])


@replaces(aten.col2im.default, code="patches-by-slices", detail="no shader puts patches together")
def images_of_tiles(
    editor: GraphEditor,
    node: fx.Node,
    x: torch.Tensor,
    output_size: Sequence[int],
    kernel_size: Sequence[int],
) -> torch.Tensor | None:
    """Put patches [batch, values, places] that tile their images together, by views."""
    (high, wide), (rows, columns, tiles) = kernel_size, _patches(node, output_size)
    if x.ndim != _IMAGES - 1 or not tiles or node in editor.constants:
        return None
    batch, values, _ = editor.sizes(x)
    channels = values // (high * wide)
    parts = x.reshape([batch, channels, high, wide, rows, columns]).permute([0, 1, 4, 2, 5, 3])
    return parts.reshape([batch, channels, *output_size])


_IMAGES: Final = 4  # dimensions


def _patches(node: fx.Node, image: Sequence[int]) -> tuple[int, int, bool]:
    """How many patches an image has along its height and its width, and whether they cover it side by side."""
    kernel, dilation, padding, stride = (
        each(operand(node, name), 2) for name in ("kernel_size", "dilation", "padding", "stride")
    )
    rows, columns = (
        (size + 2 * pad - far * (of - 1) - 1) // step + 1
        for size, pad, far, of, step in zip(image, padding, dilation, kernel, stride, strict=True)
    )
    plain = kernel == stride and not any(padding) and dilation == (1, 1)
    return rows, columns, plain and [rows * kernel[0], columns * kernel[1]] == [*image]


@replaces(
    *(aten.adaptive_max_pool1d.default, aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default),
    code="pools-as-maxima",
    detail="no library has a kernel of adaptive maxima",
)
def adaptive_pools_as_maxima(which: int, x: torch.Tensor, output_size: Sequence[int]) -> torch.Tensor | None:
    """Replace the values of each adaptive maximum by maxima of slices (aten::adaptive_max_pool2d)."""
    return None if which else _adaptive(x, output_size, torch.amax)


@replaces(
    *(aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default),
    code="pools-as-means",
    detail="the runtime has no adaptive means, and no library those of volumes",
)
def adaptive_pools_as_means(x: torch.Tensor, output_size: Sequence[int]) -> torch.Tensor | None:
    """Replace each adaptive mean by one of all, by a pool of images where windows are alike, or by means of slices.

    ExecuTorch decomposes that of all too, but into ``as_strided`` where the channels of images were moved.
    """
    sides = [*zip(x.shape[-len(output_size) :], output_size, strict=True)]
    if len(sides) < _VOLUMES - 2 and {*output_size} == {1}:
        return x.mean([-1, -2][: len(sides)], True)
    if len(sides) == 2 == x.ndim - 2 and all(isinstance(n, int) and n % many == 0 for n, many in sides):
        window = [n // many for n, many in sides]
        return aten.avg_pool2d.default(x, window, window)  # type: ignore[no-any-return]
    return _adaptive(x, output_size, torch.mean)


def _adaptive(x: torch.Tensor, output_size: Sequence[int], reduced: Any) -> torch.Tensor | None:
    """Windows reduced along one dimension after the other; sizes are static where one value does not stand for all."""
    sizes, channels = x.shape[-len(output_size) :], x.shape[1]
    pairs = [*zip(sizes, output_size, strict=True)]
    known = all(many == 1 or isinstance(size, int) for size, many in pairs)
    if not known or sum(output_size) > _MOST_SLICES or not isinstance(channels, int):
        return None
    whole = x.flatten(0, 1) if x.ndim == _VOLUMES else x
    for dim, (size, many) in enumerate(pairs, -len(output_size)):
        if many == 1:
            whole = reduced(whole, [dim], True)
            continue
        windows = [(j * size // many, -((j + 1) * size // -many)) for j in range(many)]
        parts = [aten.slice.Tensor(whole, dim, *window) for window in windows]
        whole = torch.cat([reduced(part, [dim], True) for part in parts], dim)
    return whole.reshape([-1, channels, *output_size]) if x.ndim == _VOLUMES else whole


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


@replaces(
    *(aten.max_pool2d.default, aten.avg_pool2d.default),
    code="stride-given",
    detail="the runtime reads no stride that is left out",
)
def strides_of_pools(
    editor: GraphEditor, node: fx.Node, kernel_size: Sequence[int], stride: Sequence[int]
) -> torch.Tensor | None:
    """Give pools, as ``F.max_pool2d(x, 2)``, the stride that they have: as far as their windows reach."""
    return None if stride or node in editor.constants else editor.again(node, stride=[*kernel_size])


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
