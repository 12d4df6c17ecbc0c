"""Convolutions with the padding, strides and groups that the runtime's shaders take (graph/ops/impl/Convolution.cpp).

A shader that looks for its input's end in the texture finds what a longer input left there, and the one for large depthwise
kernels loses its place at the right border: padding is written out in front. Kernels of one along a sequence know no
strides, padding or groups; groups of other convolutions are counted in texels of four channels, and transposed ones
have none: strides become a slice, groups a weight with zeros between them. Padding that is named is written as numbers.
"""

from collections.abc import Callable, Mapping

import torch
from torch import fx

from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.windows import Window, window_of
from vkfuse.runtime.operators.convolution import Kind

aten = torch.ops.aten

_PLAIN = (aten.conv1d.default, aten.conv1d.padding, aten.conv2d.default, aten.conv2d.padding)
MOST_DENSE = 1 << 20  # elements of a weight with its zeros


@replaces(
    *_PLAIN,
    code="convolution-written-out",
    detail="padding, strides or groups that its shader does not take",
)
def convolutions_as_shaders_take_them(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, weight: fx.Node, bias: torch.Tensor | None
) -> torch.Tensor | None:
    """Write out the padding, strides and groups of each convolution that its shader does not take."""
    window = window_of(node)
    kind = _kind(window, x, weight.meta["val"].shape)
    if x.ndim != kind.rank + 2:  # without a batch
        return None
    padded = kind.loses_padding or (kind.ignores_arguments and any(kind.padding))
    strided = kind.ignores_arguments and kind.stride != (1,)
    grouped = kind.mixes_groups and _may_be_dense(weight, kind.groups, editor.constants)
    if not (padded or strided or grouped or _is_valid(node)):
        return None
    padding, stride, groups = list(kind.padding), list(kind.stride), kind.groups
    if padded or any(before != after for before, after in window.pads):
        around = [n for pair in reversed(window.pads) for n in pair]
        x, padding = torch.constant_pad_nd(x, around, 0.0), [0] * kind.rank
    if strided:
        x, stride = x[..., :: stride[0]], [1]
    kernel = editor.tensor(_dense(editor, node, weight, groups) if grouped else weight)
    lists = stride, padding, list(kind.dilation)
    return _CONVOLVED[kind.rank](x, kernel, bias, *lists, 1 if grouped else groups)


@replaces(
    aten.conv_transpose2d.input,
    code="convolution-written-out",
    detail="the runtime's transposed convolution has one group",
)
def transposed_groups_as_zeros(
    editor: GraphEditor, node: fx.Node, weight: fx.Node, groups: int
) -> torch.Tensor | None:
    """Give transposed convolutions of images one group."""
    if groups <= 1 or not _may_be_dense(weight, groups, editor.constants):
        return None
    return editor.again(node, weight=_dense(editor, node, weight, groups), groups=1)


def _is_valid(node: fx.Node) -> bool:
    """Whether an image's convolution names its padding, "valid": it is decomposed to one number, where shaders read two."""
    return node.target == aten.conv2d.padding and operand(node, "padding") == "valid"


def _kind(window: Window, x: torch.Tensor, weight: torch.Size) -> Kind:
    """What the shader of a convolution is chosen by."""
    return Kind(
        rank=len(window.kernel),
        weight=tuple(weight),
        stride=window.stride,
        padding=tuple(max(pair) for pair in window.pads),
        dilation=window.dilation,
        groups=window.groups,
        transposed=False,
        dynamic=any(isinstance(size, torch.SymInt) for size in x.shape[-len(window.kernel) :]),
    )


def _may_be_dense(weight: fx.Node, groups: int, constants: Constants) -> bool:
    return weight in constants and weight.meta["val"].numel() * groups <= MOST_DENSE


def _dense(editor: GraphEditor, node: fx.Node, weight: fx.Node, groups: int) -> fx.Node:
    """The weight of a convolution for one group."""
    return editor.constant(with_zeros(editor.constants.value(weight), groups), f"dense.{node.name}")


_CONVOLVED: Mapping[int, Callable[..., torch.Tensor]] = {1: torch.conv1d, 2: torch.conv2d}


def with_zeros(weight: torch.Tensor, groups: int) -> torch.Tensor:
    """[out, in / groups, *kernel] -> [out, in, *kernel], zeros between the groups; [in, out] where transposed."""
    out, inputs = weight.shape[0] // groups, weight.shape[1]
    full = weight.new_zeros(weight.shape[0], inputs * groups, *weight.shape[2:])
    for g in range(groups):
        full[g * out : (g + 1) * out, g * inputs : (g + 1) * inputs] = weight[g * out : (g + 1) * out]
    return full
