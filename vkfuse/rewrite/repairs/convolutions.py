"""Convolutions with the padding, strides and groups that the runtime's shaders take (graph/ops/impl/Convolution.cpp).

A shader that looks for its input's end in the texture finds what a longer input left there, and the one for large depthwise
kernels loses its place at the right border: padding is written out in front. Kernels of one along a sequence know no
strides, padding or groups; groups of other convolutions are counted in texels of four channels, and transposed ones
have none: strides become a slice, groups a weight with zeros between them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten

_PLAIN: dict[Any, int] = {
    aten.conv1d.default: 1,
    aten.conv1d.padding: 1,
    aten.conv2d.default: 2,
    aten.conv2d.padding: 2,
}
_WEIGHT, _STRIDE, _PADDING, _DILATION, _GROUPS = 1, 3, 4, 5, 6
_TRANSPOSED_GROUPS = 6
_LANES = 4  # channels of a texel
_TILED = ([3, 3], [5, 5])  # depthwise kernels with shaders of their own
MOST_DENSE = 1 << 20  # elements of a weight with its zeros


@dataclass(frozen=True, slots=True, kw_only=True)
class _Convolution:
    """A plain convolution along `rank` dimensions, its lists as long as that."""

    node: fx.Node
    rank: int
    stride: list[int]
    padding: list[tuple[int, int]]
    dilation: list[int]
    groups: int

    @property
    def weight(self) -> torch.Size:
        """Sizes [out, in / groups, *kernel]."""
        shape: torch.Size = argument(self.node, _WEIGHT, "weight").meta["val"].shape
        return shape

    @property
    def pointwise(self) -> bool:
        """Whether the kernel is of one element."""
        return all(size == 1 for size in self.weight[2:])

    @property
    def depthwise(self) -> bool:
        """Whether each channel is by itself."""
        return self.groups == self.weight[0] and self.weight[1] == 1

    @property
    def dynamic(self) -> bool:
        """Whether a dimension that the kernel moves along is symbolic."""
        sizes = argument(self.node, 0, "input").meta["val"].shape[-self.rank :]
        return any(isinstance(size, torch.SymInt) for size in sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """What is written out of a convolution."""

    padding: bool = False
    stride: bool = False
    groups: bool = False


@replaces(
    *_PLAIN,
    code="convolution-written-out",
    detail="padding, strides or groups that its shader does not take",
)
def convolutions_as_shaders_take_them(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Write out the padding, strides and groups of each convolution that its shader does not take."""
    convolution = _convolution(node)
    change = _Change() if convolution is None else _change(convolution, editor.constants)
    return _written_out(editor, convolution, change) if convolution and change != _Change() else None


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


def _convolution(node: fx.Node) -> _Convolution | None:
    """The convolution that `node` is, None for one without a batch."""
    rank = _PLAIN[node.target]
    if node.meta["val"].ndim != rank + 2:
        return None
    dilation = _each(argument(node, _DILATION, "dilation", 1), rank)
    given = argument(node, _PADDING, "padding", 0)
    kernel = argument(node, _WEIGHT, "weight").meta["val"].shape[2:]
    return _Convolution(
        node=node,
        rank=rank,
        stride=_each(argument(node, _STRIDE, "stride", 1), rank),
        padding=_padding(given, kernel, dilation),
        dilation=dilation,
        groups=argument(node, _GROUPS, "groups", 1),
    )


def _padding(given: Any, kernel: torch.Size, dilation: list[int]) -> list[tuple[int, int]]:
    """Zeros before and after along each dimension; `given` may be "same" or "valid"."""
    if given == "same":
        spans = [d * (size - 1) for size, d in zip(kernel, dilation, strict=True)]
        return [(span // 2, span - span // 2) for span in spans]
    return [(n, n) for n in _each(0 if given == "valid" else given, len(kernel))]


def _each(given: Any, rank: int) -> list[int]:
    values = list(given) if isinstance(given, (list, tuple)) else [given]
    return values * rank if len(values) == 1 else values


def _change(one: _Convolution, constants: Constants) -> _Change:
    padded = any(before or after for before, after in one.padding)
    dense = one.groups > 1 and _may_be_dense(one.node, one.groups, constants)
    if one.rank == 1:
        if one.pointwise:
            return _Change(padding=padded, stride=one.stride != [1], groups=dense)
        return _Change(padding=padded and one.dynamic and not one.depthwise)
    if one.depthwise:
        at_end = one.dynamic and one.stride != one.dilation
        return _Change(padding=padded and (at_end or list(one.weight[2:]) not in _TILED))
    return _Change(groups=dense and not _in_texels(one))


def _in_texels(one: _Convolution) -> bool:
    """Whether each group is whole texels, read and written, which kernels of one do not look at."""
    return not one.pointwise and one.weight[1] % _LANES == 0 and (one.weight[0] // one.groups) % _LANES == 0


def _may_be_dense(node: fx.Node, groups: int, constants: Constants) -> bool:
    weight = argument(node, _WEIGHT, "weight")
    return weight in constants and weight.meta["val"].numel() * groups <= MOST_DENSE


def _written_out(editor: GraphEditor, one: _Convolution, change: _Change) -> fx.Node:
    x, weight, bias = (argument(one.node, i, name) for i, name in enumerate(("input", "weight", "bias")))
    padding = [before for before, _ in one.padding]
    if change.padding or any(before != after for before, after in one.padding):
        around = [n for pair in reversed(one.padding) for n in pair]
        x, padding = editor.call(aten.constant_pad_nd.default, x, around, 0.0), [0] * one.rank
    stride = one.stride
    if change.stride:
        x, stride = editor.call(aten.slice.Tensor, x, -1, 0, _END, one.stride[0]), [1]
    groups = one.groups
    if change.groups:
        weight, groups = _dense(editor, one.node, groups), 1
    target = _TARGETS[one.rank]
    return editor.call(target, x, weight, bias, stride, padding, one.dilation, groups)


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
