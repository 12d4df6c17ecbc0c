"""Values, scales and zero points of a table of a graph, read from a dequantizing operator or its decomposition.

Of a table that reaches its reader as floats they are had back from the numbers, exactly or not at all.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from vkfuse.program.tensors import array, scalar_type
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.operands import operands
from vkfuse.rewrite.prove import original_rows
from vkfuse.rewrite.sites import Site
from vkfuse.tables import nibbles
from vkfuse.tables.floats import Array
from vkfuse.tables.found import LEAST_VALUES, NoGrid, find_grid
from vkfuse.tables.grid import Grid, by_group
from vkfuse.tables.nibbles import BYTE, unpacked

_MATRIX = 2  # dimensions
GridReader = Callable[[fx.Node, Constants], Grid | None]


def _array(node: object, constants: Constants) -> Array | None:
    return array(constants.value(node)) if isinstance(node, fx.Node) and node in constants else None


def _range_of(values: Array, low: Any, high: Any) -> tuple[int, int]:
    info = np.iinfo(values.dtype)
    return int(info.min if low is None else low), int(info.max if high is None else high)


def _grid(
    node: fx.Node, values: Array, scales: Array, points: Array | None, group_size: int, low: Any, high: Any
) -> Grid:
    low, high = _range_of(values, low, high)
    return Grid(
        values=values,
        scales=scales,
        zero_points=points,
        group_size=group_size,
        quant_min=low,
        quant_max=high,
        dtype=scalar_type(node.meta["val"].dtype),
    )


def _read_dequantize_affine(node: fx.Node, constants: Constants) -> Grid | None:
    """``torchao.dequantize_affine``."""
    given = operands(node)
    values, scales, points = (_array(given[name], constants) for name in ("x", "scale", "zero_point"))
    if values is None or scales is None or values.ndim < _MATRIX or values.dtype.kind == "f":
        return None
    block = [
        size if part == -1 else part for part, size in zip(given["block_size"], values.shape, strict=True)
    ]
    group = _neighbours(block, values.shape)
    if group is None:
        return None
    values = values.reshape(len(values), -1)
    rows, groups = len(values), values.shape[1] // group
    scales = by_group(_flat(scales), rows, groups)
    points = None if points is None else by_group(_flat(points), rows, groups)
    if scales is None or (points is None and given["zero_point"] is not None):
        return None
    return _grid(node, values, scales, points, group, given["quant_min"], given["quant_max"])


def _neighbours(block: Sequence[int], shape: Sequence[int]) -> int | None:
    """How many columns a block has, all axes but the first as columns, None where these are no neighbours."""
    count, whole = 1, 1
    for part, size in zip(reversed(block[1:]), reversed(shape[1:]), strict=True):
        if count != whole and part != 1:
            return None
        count, whole = count * part, whole * size
    return count


def _flat(parameter: Array) -> Array:
    """Scales or zero points of blocks as a matrix."""
    return parameter if parameter.ndim < _MATRIX else parameter.reshape(len(parameter), -1)


def _read_by_rows(node: fx.Node, constants: Constants) -> Grid | None:
    """``quantized_decomposed.dequantize_per_channel``, of rows, and ``dequantize_per_channel_group``."""
    given = operands(node)
    values, scales, points = (_array(given[name], constants) for name in ("x", "scales", "zero_points"))
    if values is None or scales is None or values.ndim < _MATRIX or given.get("axis", 0) != 0:
        return None
    values, scales = values.reshape(len(values), -1), scales.reshape(len(values), -1)
    points = None if points is None else points.reshape(len(values), -1)
    group = int(given.get("group_size", values.shape[1]))
    return _grid(node, values, scales, points, group, given["quant_min"], given["quant_max"])


def _read_per_tensor(node: fx.Node, constants: Constants) -> Grid | None:
    """``quantized_decomposed.dequantize_per_tensor``."""
    given = operands(node)
    values = _array(given["x"], constants)
    if values is None or values.ndim < _MATRIX:
        return None
    values = values.reshape(len(values), -1)
    scales = np.full((len(values), 1), given["scale"], np.float32)
    points = np.full((len(values), 1), given["zero_point"], np.int32)
    return _grid(node, values, scales, points, values.shape[1], given["quant_min"], given["quant_max"])


def _read_lookup(bits: int) -> GridReader:
    """``quantized_decomposed.embedding_*(weight, scales, zero_points, quant_min, quant_max, indices)``.

    `weight` is [rows, bytes], a byte holding one value or several; scales and zero points are [rows] or [rows, groups].
    """

    def read(node: fx.Node, constants: Constants) -> Grid | None:
        weight, scales, points, low, high, *_ = operands(node).values()
        packed, scales, known = (_array(of, constants) for of in (weight, scales, points))
        if packed is None or scales is None or (known is None and points is not None):
            return None
        values = unpacked(packed, bits)
        scales = scales.reshape(len(values), -1)
        known = None if known is None else known.reshape(len(values), -1)
        return _grid(node, values, scales, known, values.shape[1] // scales.shape[1], low, high)

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
    scale, known = scale.reshape(rows, groups), points[0].reshape(rows, groups) if points else None
    return _grid(operand, integers, scale, known, columns // groups, low, high)


def weights_behind(operand: fx.Node, constants: Constants) -> list[fx.Node]:
    """Stored integer matrices of the shape of `operand`, or of its transpose, that it is computed from."""
    shape = tuple(operand.meta["val"].shape)
    return [n for n in constants.expression(operand) if n.op == "placeholder" and _is_weight(n, shape)]


def _is_weight(node: fx.Node, shape: tuple[int, ...]) -> bool:
    value = node.meta["val"]
    fits = tuple(value.shape) in {shape, shape[::-1]}
    return fits and value.ndim == 2 and value.dtype in {torch.int8, torch.uint8}


def numbers_behind(operand: fx.Node, constants: Constants) -> list[fx.Node]:
    """Stored numbers of few bits that `operand` is computed from on no known grid: 8-bit floats, or packed codes."""
    value = operand.meta["val"]
    stored = (n for n in constants.expression(operand) if n.op == "placeholder")
    return [n for n in stored if _is_narrow(n.meta["val"], value.numel())]


_CODES = frozenset({torch.uint8, torch.int8, torch.int32})
_FOUR_BITS = 2  # values in a byte
_WORD = 32  # bits


def _is_narrow(value: torch.Tensor, size: int) -> bool:
    """Whether these may be all `size` weights: floats of four or eight bits, or integers of 1 to 31 bits a weight."""
    if value.dtype.is_floating_point:
        return value.dtype.itemsize == 1 and value.numel() * _FOUR_BITS >= size
    return value.dtype in _CODES and value.ndim >= _MATRIX and size <= value.nbytes * BYTE < size * _WORD


def weight_readers() -> dict[object, GridReader]:
    """Operators that turn a stored integer weight into floats, and how to read each."""
    decomposed = torch.ops.quantized_decomposed
    return {
        torch.ops.torchao.dequantize_affine.default: _read_dequantize_affine,
        decomposed.dequantize_per_tensor.default: _read_per_tensor,
        decomposed.dequantize_per_channel.default: _read_by_rows,
        decomposed.dequantize_per_channel_group.default: _read_by_rows,
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


def grid_had_back(site: Site, constants: Constants) -> Grid | NoGrid | None:
    """The grid of the float matrix that a site reads, or how close it came; None where it reads none that is worth it."""
    operand = site.operand
    value = None if operand is None else operand.meta["val"]
    if value is None or value.ndim < _MATRIX or not value.is_floating_point() or value.numel() < LEAST_VALUES:
        return None
    key = (operand, site.transposed)
    if key not in constants.derived:
        rows, *rest = value.shape[::-1] if site.transposed else value.shape
        constants.derived[key] = find_grid(
            original_rows(site, constants), rows, torch.Size(rest).numel(), scalar_type(value.dtype)
        )
    found = constants.derived[key]
    return found if isinstance(found, (Grid, NoGrid)) else None
