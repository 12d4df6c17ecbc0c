"""Products of matrices in a wider type than their own.

``aten._int_mm`` (int8-dynamic-activation int8-weight linears) has no kernel in any ExecuTorch runtime. Where it multiplies
rows that torchao quantized by a constant, and the scales of both follow, it is the linear that these integers stand for, up
to the rounding of float32; elsewhere an integer matmul, which the portable library has: the weight stays one byte and is
widened at run time. That is exact: int32 sums of int8 products are the operator's own.

Half-precision products are summed in half by the shaders of buffers and by the portable CPU kernels (`sums-in-half`), where
torch sums in float32: long ones of two activations are multiplied in float32. A constant matrix would be stored twice as
large; there verify says how far off the file is.

A linear's weight is a constant to the runtime, and so is the matrix of a product that ExecuTorch takes for a linear, one
that was turned. Where it is computed (an adapter that an input chooses), the product is a batch of one.

The runtime computes each element of a product in one thread, column after column: the last product of attention over a
cache is as slow as the cache is long, while most of a GPU waits. Parts of the columns are a batch of products.
"""

import operator
from collections.abc import Mapping
from math import prod
from typing import Any, Final

import torch
from torch import fx

from vkfuse.program.tensors import described
from vkfuse.rewrite.activations import uncopied
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import TRANSPOSES
from vkfuse.rewrite.operands import is_dynamic, operand, operands
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten


_LONG: Final = 512
_BYTES: Final = (-128, 127)
_SHIFT: Final = 128  # of int8 codes as uint8 (torchao/kernel/intmm.py, on CPUs with VNNI)
_TEXEL: Final = 4  # inputs that a quantized matmul reads at a time


@replaces(
    aten.mul.Tensor,
    code="int-mm-as-linears",
    detail="int8 matmuls and the scales that follow, as linears of what was quantized",
)
def integer_matmuls_as_linears(
    editor: GraphEditor, node: fx.Node, x: fx.Node, other: fx.Node
) -> torch.Tensor | None:
    """Write ``codes @ weight * scales of rows * scales of columns`` as a linear of both, dequantized.

    Source: torchao/kernel/intmm.py.
    """
    if uncopied(x).target != aten.mul.Tensor or other not in editor.constants:
        return None
    sums, of_rows = (uncopied(factor) for factor in operands(uncopied(x)).values())
    found = _quantized_product(editor, sums)
    if found is None or node.meta["val"].dtype is not torch.float32:
        return None
    codes, weight = found
    inputs, outputs = weight.meta["val"].shape
    if not _is_scaled(codes, of_rows) or other.meta["val"].numel() != outputs or inputs % _TEXEL:
        return None
    given, back = operands(codes), torch.ops.torchao.dequantize_affine.default
    bytes_ = (torch.int8, *_BYTES)
    rows = editor.call(back, codes, given["block_size"], given["scale"], given["zero_point"], *bytes_)
    table = back(editor.tensor(weight).t(), [1, inputs], editor.tensor(other).reshape([-1, 1]), None, *bytes_)
    return aten.linear.default(editor.tensor(rows), table).reshape([-1, outputs])  # type: ignore[no-any-return]


def _is_scaled(codes: fx.Node, scale: Any) -> bool:
    """Whether floats were quantized to bytes by this scale, without zero points."""
    given = operands(codes)
    chosen = scale.args[0] if scale.target is operator.getitem else scale
    if (
        uncopied(given["scale"]) is not scale
        or chosen.target != torch.ops.torchao.choose_qparams_affine.default
    ):
        return False
    floats = given["x"].meta["val"].dtype is torch.float32
    choice = operands(chosen)
    ranges = {tuple(of[name] for name in ("quant_min", "quant_max")) for of in (given, choice)}
    return floats and choice["mapping_type"] == "SYMMETRIC" and ranges == {_BYTES}


def _quantized_product(editor: GraphEditor, sums: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """The call that quantized rows, and the constant [inputs, outputs] that these are multiplied by, of integer sums."""
    taken = None
    if sums.target == aten.sub.Tensor:
        sums, taken = uncopied(operand(sums, "x")), operand(sums, "other")
    if sums.target != aten._int_mm.default:  # noqa: SLF001 - the operator's name
        return None
    codes, weight = uncopied(operand(sums, "x")), operand(sums, "mat2")
    if weight not in editor.constants or weight.meta["val"].dtype is not torch.int8:
        return None
    if taken is not None:
        raised = codes.target == aten.add.Tensor and operand(codes, "other") == _SHIFT
        if not raised or taken not in editor.constants:
            return None
        columns = editor.constants.value(weight).sum(0, dtype=torch.int32) * _SHIFT
        if not torch.equal(editor.constants.value(taken).reshape(-1), columns):
            return None
        codes = uncopied(operand(codes, "x"))
    return (codes, weight) if codes.target == torch.ops.torchao.quantize_affine.default else None


@replaces(
    aten._int_mm.default,  # noqa: SLF001 - the operator's name
    code="int-mm-widened",
    detail="int8 matmuls on the CPU, the weight one byte a value",
)
def widen_integer_matmuls(x: torch.Tensor, mat2: torch.Tensor) -> torch.Tensor:
    """Replace each int8 matmul by an int32 one."""
    return x.to(torch.int32).mm(mat2.to(torch.int32))


@replaces(
    *(aten.mm.default, aten.bmm.default, aten.matmul.default),
    code="half-matmul-widened",
    detail="half-precision sums of more than 512 products",
)
def widen_long_half_matmuls(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    """Multiply half-precision activations over more than 512 columns in float32."""
    factors = operands(node)
    long = described(factors["x"].meta["val"]).dims[-1] > _LONG
    if node.meta["val"].dtype is not torch.float16 or not long:
        return None
    if any(factor in editor.constants for factor in factors.values()):
        return None
    wide = {name: editor.tensor(factor).to(torch.float32) for name, factor in factors.items()}
    return editor.again(node, **wide).to(torch.float16)


_SECOND: Final[Mapping[Any, str]] = {
    aten.linear.default: "weight",
    aten.mm.default: "mat2",
    aten.matmul.default: "other",
}


@replaces(
    *_SECOND, code="computed-matrices-as-batches", detail="a linear's weight is a constant to the runtime"
)
def computed_matrices_as_batches(editor: GraphEditor, node: fx.Node, x: torch.Tensor) -> torch.Tensor | None:
    """Multiply ``[.., rows, K]`` by a turned matrix that is no constant, ``[K, N]``, as a batch of one product."""
    given = operands(node)
    second, turned = given[_SECOND[node.target]], node.target == aten.linear.default
    if second in editor.constants or given["x"] in editor.constants or not x.is_floating_point():
        return None
    if second.meta["val"].ndim != 2 or x.ndim < 2 or not (turned or second.target in TRANSPOSES):
        return None
    matrix = editor.tensor(second).permute([1, 0]) if turned else editor.tensor(second)
    rows = x.reshape([1, -1, x.shape[-1]]).matmul(matrix.unsqueeze(0))
    out = rows.reshape([*editor.sizes(x)[:-1], matrix.shape[-1]])
    return out if given.get("bias") is None else out + editor.tensor(given["bias"])


_FEW: Final = 16  # rows
_PART: Final = 64  # columns, of at least _MANY
_MANY: Final = 256


@replaces(
    aten.matmul.default,
    code="long-products-in-parts",
    detail=f"{_PART} columns at a time, equal up to rounding",
)
def long_products_in_parts(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor | None:
    """Replace each product [.., few rows, columns] by [.., columns, n] of static shapes."""
    if is_dynamic(x) or is_dynamic(other) or not _is_long(x, other):
        return None
    *batch, rows, columns = x.shape
    width, parts, matrices = other.shape[-1], columns // _PART, prod(batch)
    apart = x.reshape([matrices, rows, parts, _PART]).permute([0, 2, 1, 3])
    left = apart.reshape([matrices * parts, rows, _PART])
    products = left.matmul(other.reshape([matrices * parts, _PART, width]))
    whole = products.reshape([matrices, parts, rows * width]).sum([1], True)
    return whole.reshape([*batch, rows, width])


def _is_long(first: torch.Tensor, second: torch.Tensor) -> bool:
    if first.ndim < 3 or first.shape[:-2] != second.shape[:-2] or not first.is_floating_point():
        return False
    rows, columns = first.shape[-2:]
    return rows <= _FEW and columns >= _MANY and columns % _PART == 0
