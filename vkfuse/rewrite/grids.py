"""How a table's numbers are made: integer values, scales and zero points, read from a dequantizing operator."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.packing import nibbles


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """A 2-D table ``(values - zero_points) * scales``, one scale for `group_size` neighbouring columns of a row.

    `values` is an integer tensor [rows, columns]; `scales` [rows, columns / group_size] of a float dtype; `zero_points`
    of the shape of `scales`, integer or float, or None for zero. `quant_min` and `quant_max` are what the program
    declares, `dtype` is the float dtype that the program dequantizes to.
    """

    values: torch.Tensor
    scales: torch.Tensor
    zero_points: torch.Tensor | None
    group_size: int
    quant_min: int
    quant_max: int
    dtype: torch.dtype

    @property
    def rows(self) -> int:
        """Number of rows (vocabulary of a lookup, outputs of a linear)."""
        return self.values.shape[0]

    @property
    def columns(self) -> int:
        """Number of columns (embedding dimension, inputs of a linear)."""
        return self.values.shape[1]

    @property
    def bits(self) -> int:
        """Bits that the declared range takes."""
        return max(1, (self.quant_max - self.quant_min).bit_length())

    def centred(self) -> torch.Tensor | None:
        """`values - zero_points` as integers [rows, columns], or None where a zero point is no integer."""
        if self.zero_points is None or not self.zero_points.any():
            return self.values
        points = self.zero_points
        if points.is_floating_point() and not torch.equal(points, points.round()):
            return None
        if float(points.double().abs().max()) > torch.iinfo(torch.int16).max // 2:
            return None
        return self.values.to(torch.int16) - points.to(torch.int16).repeat_interleave(self.group_size, dim=1)


GridReader = Callable[[fx.Node, Constants], Grid | None]


def _tensor(node: object, constants: Constants) -> torch.Tensor | None:
    return constants.value(node) if isinstance(node, fx.Node) and node in constants else None


def _grouped(parameter: torch.Tensor, rows: int, groups: int) -> torch.Tensor | None:
    """Scales or zero points of any block shape as [rows, groups], None where they do not tile the table."""
    if parameter.numel() == 1:
        return parameter.reshape(1, 1).expand(rows, groups).contiguous()
    if parameter.ndim == 1 and parameter.numel() == rows and groups == 1:
        return parameter.reshape(rows, 1)
    if parameter.ndim != 2 or rows % parameter.shape[0] or groups % parameter.shape[1]:
        return None
    return parameter.repeat_interleave(rows // parameter.shape[0], 0).repeat_interleave(
        groups // parameter.shape[1], 1
    )


def _range_of(dtype: torch.dtype, low: Any, high: Any) -> tuple[int, int]:
    info = torch.iinfo(dtype)
    return int(info.min if low is None else low), int(info.max if high is None else high)


def _read_dequantize_affine(node: fx.Node, constants: Constants) -> Grid | None:
    """``torchao.dequantize_affine``, its arguments by position or by name."""
    values = _tensor(node.args[0], constants)
    scales = _tensor(argument(node, 2, "scale"), constants)
    if values is None or scales is None or values.ndim != 2 or values.is_floating_point():
        return None
    block = [int(b) if b != -1 else values.shape[i] for i, b in enumerate(argument(node, 1, "block_size"))]
    rows, columns = values.shape
    groups = columns // block[1]
    points_node = argument(node, 3, "zero_point")
    points = _tensor(points_node, constants)
    low, high = _range_of(values.dtype, argument(node, 5, "quant_min"), argument(node, 6, "quant_max"))
    scales = _grouped(scales, rows, groups)
    points = None if points is None else _grouped(points, rows, groups)
    if scales is None or (points is None and points_node is not None):
        return None
    return Grid(
        values=values,
        scales=scales,
        zero_points=points,
        group_size=block[1],
        quant_min=low,
        quant_max=high,
        dtype=argument(node, 7, "output_dtype", torch.float32),
    )


def _read_per_channel(node: fx.Node, constants: Constants) -> Grid | None:
    """``quantized_decomposed.dequantize_per_channel``: input, scales, zero_points, axis, quant_min, quant_max, dtype."""
    values = _tensor(node.args[0], constants)
    scales = _tensor(node.args[1], constants)
    if values is None or scales is None or values.ndim != 2 or node.args[3] != 0:
        return None
    points = _tensor(node.args[2], constants)
    return Grid(
        values=values,
        scales=scales.reshape(-1, 1),
        zero_points=None if points is None else points.reshape(-1, 1),
        group_size=values.shape[1],
        quant_min=int(node.args[4]),  # type: ignore[arg-type]
        quant_max=int(node.args[5]),  # type: ignore[arg-type]
        dtype=node.kwargs.get("out_dtype") or torch.float32,  # type: ignore[arg-type]
    )


def _read_per_channel_group(node: fx.Node, constants: Constants) -> Grid | None:
    """``quantized_decomposed.dequantize_per_channel_group``: as above, with group_size in place of the axis."""
    values = _tensor(node.args[0], constants)
    scales = _tensor(node.args[1], constants)
    if values is None or scales is None or values.ndim != 2:
        return None
    points = _tensor(node.args[2], constants)
    group = int(argument(node, 6, "group_size", values.shape[1]))
    return Grid(
        values=values,
        scales=scales.reshape(values.shape[0], -1),
        zero_points=None if points is None else points.reshape(values.shape[0], -1),
        group_size=group,
        quant_min=int(node.args[3]),  # type: ignore[arg-type]
        quant_max=int(node.args[4]),  # type: ignore[arg-type]
        dtype=argument(node, 7, "output_dtype", torch.float32),
    )


def _read_embedding_4bit(node: fx.Node, constants: Constants) -> Grid | None:
    """``quantized_decomposed.embedding_4bit(weight, scales, zero_points, quant_min, quant_max, indices)``.

    `weight` is uint8 [rows, columns / 2], the even column in the high nibble, each value plus 8.
    """
    packed = _tensor(node.args[0], constants)
    scales = _tensor(node.args[1], constants)
    if packed is None or scales is None or packed.ndim != 2:
        return None
    nibbles = torch.stack([packed >> 4, packed & 15], dim=-1).reshape(packed.shape[0], -1)
    values = nibbles.to(torch.int8) - 8
    points = _tensor(node.args[2], constants)
    grouped = scales.reshape(values.shape[0], -1)
    return Grid(
        values=values,
        scales=grouped,
        zero_points=None if points is None else points.reshape(values.shape[0], -1),
        group_size=values.shape[1] // grouped.shape[1],
        quant_min=int(node.args[3]),  # type: ignore[arg-type]
        quant_max=int(node.args[4]),  # type: ignore[arg-type]
        dtype=node.kwargs.get("dtype") or scales.dtype,  # type: ignore[arg-type]
    )


def read_arithmetic(operand: fx.Node, constants: Constants) -> Grid | None:
    """The grid of a table whose dequantization was decomposed: integers of its shape and one tensor of scales.

    Which constants they are is a guess from shapes; whoever uses the grid proves it against what `operand` computes.
    """
    stored = [n for n in constants.expression(operand) if n.op == "placeholder"]
    values = weights_behind(operand, constants)
    if len(values) != 1:
        return None
    integers = constants.value(values[0])
    rows, columns = integers.shape
    others = [constants.value(n) for n in stored if n is not values[0]]
    scales = [
        t
        for t in others
        if t.is_floating_point() and t.numel() % rows == 0 and columns % max(1, t.numel() // rows) == 0
    ]
    points = [t for t in others if not t.is_floating_point() and scales and t.shape == scales[0].shape]
    if len(scales) != 1 or len(points) > 1:
        return None
    groups = max(1, scales[0].numel() // rows)
    low, high = (-8, 7) if nibbles.fits(integers) else _range_of(integers.dtype, None, None)
    return Grid(
        values=integers,
        scales=scales[0].reshape(rows, groups),
        zero_points=points[0].reshape(rows, groups) if points else None,
        group_size=columns // groups,
        quant_min=low,
        quant_max=high,
        dtype=operand.meta["val"].dtype,
    )


def weights_behind(operand: fx.Node, constants: Constants) -> list[fx.Node]:
    """Stored integer matrices of the shape of `operand`, or of its transpose, that it is computed from."""
    shape = tuple(operand.meta["val"].shape)
    return [n for n in constants.expression(operand) if n.op == "placeholder" and _is_weight(n, shape)]


def _is_weight(node: fx.Node, shape: tuple[int, ...]) -> bool:
    value = node.meta["val"]
    fits = tuple(value.shape) in {shape, shape[::-1]}
    return fits and value.ndim == 2 and value.dtype in {torch.int8, torch.uint8}


def weight_readers() -> dict[object, GridReader]:
    """Operators that turn a stored integer weight into floats, and how to read each."""
    decomposed = torch.ops.quantized_decomposed
    return {
        torch.ops.torchao.dequantize_affine.default: _read_dequantize_affine,
        decomposed.dequantize_per_channel.default: _read_per_channel,
        decomposed.dequantize_per_channel_group.default: _read_per_channel_group,
    }


def lookup_readers() -> dict[object, GridReader]:
    """Lookups that dequantize by themselves, and how to read each."""
    decomposed = torch.ops.quantized_decomposed
    return {
        decomposed.embedding_4bit.default: _read_embedding_4bit,
        decomposed.embedding_4bit.dtype: _read_embedding_4bit,
    }
