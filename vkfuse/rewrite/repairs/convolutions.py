"""Convolutions with the padding, strides and groups that the runtime's shaders take (graph/ops/impl/Convolution.cpp).

A shader that looks for its input's end in the texture finds what a longer input left there, and the one for large depthwise
kernels loses its place at the right border: padding is written out in front. Kernels of one along a sequence know no
strides, padding or groups; groups of other convolutions are counted in texels of four channels, and transposed ones
have none: strides become a slice, groups a weight with zeros between them. Padding that is named is written as numbers.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.windows import Window, window_of
from vkfuse.runtime.operators.convolution import Kind

aten = torch.ops.aten

_PLAIN = (aten.conv1d.default, aten.conv1d.padding, aten.conv2d.default, aten.conv2d.padding)
_WEIGHT, _TRANSPOSED_GROUPS = 1, 6
MOST_DENSE = 1 << 20  # elements of a weight with its zeros


@replaces(
    *_PLAIN,
    code="convolution-written-out",
    detail="padding, strides or groups that its shader does not take",
)
def convolutions_as_shaders_take_them(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Write out the padding, strides and groups of each convolution that its shader does not take."""
    window = window_of(node)
    kind = _kind(node, window)
    if node.meta["val"].ndim != kind.rank + 2:  # without a batch
        return None
    padded = kind.loses_padding or (kind.ignores_arguments and any(kind.padding))
    strided = kind.ignores_arguments and kind.stride != (1,)
    grouped = kind.mixes_groups and _may_be_dense(node, kind.groups, editor.constants)
    if not (padded or strided or grouped or _is_valid(node, kind)):
        return None
    x, weight, bias = (argument(node, i, name) for i, name in enumerate(("input", "weight", "bias")))
    padding, stride, groups = list(kind.padding), list(kind.stride), kind.groups
    if padded or any(before != after for before, after in window.pads):
        around = [n for pair in reversed(window.pads) for n in pair]
        x, padding = editor.call(aten.constant_pad_nd.default, x, around, 0.0), [0] * kind.rank
    if strided:
        x, stride = editor.call(aten.slice.Tensor, x, -1, 0, _END, *stride), [1]
    if grouped:
        weight, groups = _dense(editor, node, groups), 1
    target = _TARGETS[kind.rank]
    return editor.call(target, x, weight, bias, stride, padding, list(kind.dilation), groups)


@replaces(
    aten.conv_transpose2d.input,
    code="convolution-written-out",
    detail="the runtime's transposed convolution has one group",
)
def transposed_groups_as_zeros(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Give transposed convolutions of images one group."""
    groups = argument(node, _TRANSPOSED_GROUPS, "groups", 1)
    if groups <= 1 or not _may_be_dense(node, groups, editor.constants):
        return None
    args: list[Any] = list(node.args)
    args[_WEIGHT] = _dense(editor, node, groups)
    args[_TRANSPOSED_GROUPS] = 1
    return editor.call(node.target, *args)


def _is_valid(node: fx.Node, kind: Kind) -> bool:
    """Whether an image's convolution names its padding, "valid": it is decomposed to one number, where shaders read two."""
    return (
        kind.rank > 1
        and node.target == aten.conv2d.padding
        and argument(node, 4, "padding", "valid") == "valid"
    )


def _kind(node: fx.Node, window: Window) -> Kind:
    """What the shader of a convolution is chosen by."""
    rank = len(window.kernel)
    sizes = argument(node, 0, "input").meta["val"].shape[-rank:]
    return Kind(
        rank=rank,
        weight=tuple(argument(node, _WEIGHT, "weight").meta["val"].shape),
        stride=window.stride,
        padding=tuple(max(pair) for pair in window.pads),
        dilation=window.dilation,
        groups=window.groups,
        transposed=False,
        dynamic=any(isinstance(size, torch.SymInt) for size in sizes),
    )


def _may_be_dense(node: fx.Node, groups: int, constants: Constants) -> bool:
    weight = argument(node, _WEIGHT, "weight")
    return weight in constants and weight.meta["val"].numel() * groups <= MOST_DENSE


def _dense(editor: GraphEditor, node: fx.Node, groups: int) -> fx.Node:
    """The weight of a convolution for one group."""
    value = editor.constants.value(argument(node, _WEIGHT, "weight"))
    return editor.constant(with_zeros(value, groups), f"dense.{node.name}")


_END = (1 << 63) - 1
_TARGETS: dict[int, Callable[..., Any]] = {1: aten.conv1d.default, 2: aten.conv2d.default}


def with_zeros(weight: torch.Tensor, groups: int) -> torch.Tensor:
    """[out, in / groups, *kernel] -> [out, in, *kernel], zeros between the groups; [in, out] where transposed."""
    out, inputs = weight.shape[0] // groups, weight.shape[1]
    full = weight.new_zeros(weight.shape[0], inputs * groups, *weight.shape[2:])
    for g in range(groups):
        full[g * out : (g + 1) * out, g * inputs : (g + 1) * inputs] = weight[g * out : (g + 1) * out]
    return full
