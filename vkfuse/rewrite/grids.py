"""Values, scales and zero points of a table of a graph, read from a dequantizing operator or its decomposition."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from vkfuse.program.tensors import array, scalar_type
from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.constants import Constants
from vkfuse.tables import nibbles
from vkfuse.tables.fields import BYTE, unpacked
from vkfuse.tables.floats import Array
from vkfuse.tables.grid import Grid, by_group

_MATRIX = 2  # dimensions
GridReader = Callable[[fx.Node, Constants], Grid | None]


def _array(node: object, constants: Constants) -> Array | None:
    return array(constants.value(node)) if isinstance(node, fx.Node) and node in constants else None


def _range_of(values: Array, low: Any, high: Any) -> tuple[int, int]:
    info = np.iinfo(values.dtype)
    return int(info.min if low is None else low), int(info.max if high is None else high)


def _read_dequantize_affine(node: fx.Node, constants: Constants) -> Grid | None:
    """``torchao.dequantize_affine``, its arguments by position or by name."""
    values = _array(node.args[0], constants)
    scales = _array(argument(node, 2, "scale"), constants)
    if values is None or scales is None or values.ndim != 2 or values.dtype.kind == "f":
        return None
    block = [int(b) if b != -1 else values.shape[i] for i, b in enumerate(argument(node, 1, "block_size"))]
    rows, columns = values.shape
    groups = columns // block[1]
    points_node = argument(node, 3, "zero_point")
    points = _array(points_node, constants)
    low, high = _range_of(values, argument(node, 5, "quant_min"), argument(node, 6, "quant_max"))
    scales = by_group(scales, rows, groups)
    points = None if points is None else by_group(points, rows, groups)
    if scales is None or (points is None and points_node is not None):
        return None
    return Grid(
        values=values,
        scales=scales,
        zero_points=points,
        group_size=block[1],
        quant_min=low,
        quant_max=high,
        dtype=scalar_type(argument(node, 7, "output_dtype", torch.float32)),
    )


def _read_per_channel(node: fx.Node, constants: Constants) -> Grid | None:
    """``quantized_decomposed.dequantize_per_channel``: input, scales, zero_points, axis, quant_min, quant_max, dtype."""
    values = _array(node.args[0], constants)
    scales = _array(node.args[1], constants)
    if values is None or scales is None or values.ndim < _MATRIX or node.args[3] != 0:
        return None
    points, values = _array(node.args[2], constants), values.reshape(len(values), -1)
    return Grid(
        values=values,
        scales=scales.reshape(-1, 1),
        zero_points=None if points is None else points.reshape(-1, 1),
        group_size=values.shape[1],
        quant_min=int(node.args[4]),  # type: ignore[arg-type]
        quant_max=int(node.args[5]),  # type: ignore[arg-type]
        dtype=scalar_type(node.kwargs.get("out_dtype") or torch.float32),  # type: ignore[arg-type]
    )


def _read_per_tensor(node: fx.Node, constants: Constants) -> Grid | None:
    """``quantized_decomposed.dequantize_per_tensor``: input, scale, zero_point, quant_min, quant_max, dtype."""
    values = _array(node.args[0], constants)
    if values is None or values.ndim < _MATRIX:
        return None
    values = values.reshape(len(values), -1)
    return Grid(
        values=values,
        scales=np.full((len(values), 1), node.args[1], np.float32),
        zero_points=np.full((len(values), 1), node.args[2], np.int32),
        group_size=values.shape[1],
        quant_min=int(node.args[3]),  # type: ignore[arg-type]
        quant_max=int(node.args[4]),  # type: ignore[arg-type]
        dtype=scalar_type(node.kwargs.get("out_dtype") or torch.float32),  # type: ignore[arg-type]
    )


def _read_per_channel_group(node: fx.Node, constants: Constants) -> Grid | None:
    """``quantized_decomposed.dequantize_per_channel_group``: as above, with group_size in place of the axis."""
    values = _array(node.args[0], constants)
    scales = _array(node.args[1], constants)
    if values is None or scales is None or values.ndim != 2:
        return None
    points = _array(node.args[2], constants)
    group = int(argument(node, 6, "group_size", values.shape[1]))
    return Grid(
        values=values,
        scales=scales.reshape(values.shape[0], -1),
        zero_points=None if points is None else points.reshape(values.shape[0], -1),
        group_size=group,
        quant_min=int(node.args[3]),  # type: ignore[arg-type]
        quant_max=int(node.args[4]),  # type: ignore[arg-type]
        dtype=scalar_type(argument(node, 7, "output_dtype", torch.float32)),
    )


def _read_lookup(bits: int) -> GridReader:
    """``quantized_decomposed.embedding_*(weight, scales, zero_points, quant_min, quant_max, indices)``.

    `weight` is [rows, bytes], a byte holding one value or several; scales and zero points are [rows] or [rows, groups].
    """

    def read(node: fx.Node, constants: Constants) -> Grid | None:
        packed = _array(node.args[0], constants)
        scales = _array(node.args[1], constants)
        points = _array(node.args[2], constants)
        if packed is None or scales is None or (points is None and node.args[2] is not None):
            return None
        values = unpacked(packed, bits)
        grouped = scales.reshape(len(values), -1)
        return Grid(
            values=values,
            scales=grouped,
            zero_points=None if points is None else points.reshape(len(values), -1),
            group_size=values.shape[1] // grouped.shape[1],
            quant_min=int(node.args[3]),  # type: ignore[arg-type]
            quant_max=int(node.args[4]),  # type: ignore[arg-type]
            dtype=scalar_type(node.meta["val"].dtype),
        )

    return read


def read_arithmetic(operand: fx.Node, constants: Constants) -> Grid | None:
    """The grid of a table whose dequantization was decomposed: integers of its shape and one tensor of scales, or none.

    Which constants they are is a guess from shapes; whoever uses the grid proves it against what `operand` computes.
    """
    stored = [n for n in constants.expression(operand) if n.op == "placeholder"]
    values = weights_behind(operand, constants)
    if len(values) != 1:
        return None
    integers = array(constants.value(values[0]))
    rows, columns = integers.shape
    others = [array(constants.value(n)) for n in stored if n is not values[0]]
    scales = [
        t
        for t in others
        if t.dtype.kind == "f" and t.size % rows == 0 and columns % max(1, t.size // rows) == 0
    ]
    points = [t for t in others if t.dtype.kind != "f" and scales and t.shape == scales[0].shape]
    if len(scales) > 1 or len(points) > 1:
        return None
    scale = (
        scales[0] if scales else np.ones((rows, 1), np.float32)
    )  # applied after the matmul, by torchao's int8 linears
    groups = max(1, scale.size // rows)
    low, high = (-8, 7) if nibbles.fits(integers) else _range_of(integers, None, None)
    return Grid(
        values=integers,
        scales=scale.reshape(rows, groups),
        zero_points=points[0].reshape(rows, groups) if points else None,
        group_size=columns // groups,
        quant_min=low,
        quant_max=high,
        dtype=scalar_type(operand.meta["val"].dtype),
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
        decomposed.dequantize_per_tensor.default: _read_per_tensor,
        decomposed.dequantize_per_channel.default: _read_per_channel,
        decomposed.dequantize_per_channel_group.default: _read_per_channel_group,
    }


def lookup_readers() -> dict[object, GridReader]:
    """Lookups that dequantize by themselves, and how to read each."""
    decomposed = torch.ops.quantized_decomposed
    packets = {decomposed.embedding_byte: BYTE, decomposed.embedding_4bit: 4, decomposed.embedding_2bit: 2}
    return {
        overload: _read_lookup(bits)
        for packet, bits in packets.items()
        for overload in (packet.default, packet.dtype)
    }
