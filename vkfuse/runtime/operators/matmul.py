"""Products of float matrices (Matmul.cpp, Linear.cpp, GemmCommon.cpp)."""

from collections.abc import Iterator
from math import prod
from typing import Final

from vkfuse.multiples import ceil_div
from vkfuse.runtime.axes import product, times_a_weight
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.operands import Operands, Tensor
from vkfuse.runtime.packing import copied_like, float_matrix, float_matrix_storage
from vkfuse.runtime.record import Operator
from vkfuse.runtime.rules import no_texture_from_a_buffer, packed_by_width
from vkfuse.runtime.spelling import dtype, storage

# Matmuls by a matrix of floats: which argument it is, and whether it stands turned, [columns, rows].
FLOAT_WEIGHTS: Final = {
    "aten.linear.default": ("weight", False),
    "aten.mm.default": ("mat2", True),
    "aten.addmm.default": ("mat2", True),
    "aten.bmm.default": ("mat2", True),
}
_FEWEST_THREADS: Final = 4096  # kMinOccupancyThreads


def batch_of_three(ops: Operands) -> Iterator[Objection]:
    """Linear.cpp, pick_linear_global_wg_size: a batch is what size -3 says (measured: [2, 3, 8, 64] is off by 1.0)."""
    source = ops.tensor("input")
    if source and prod(source.dims[:-3]) > 1:
        yield Objection(Code.LINEAR_INPUT_BATCHED, f"input {list(source.dims)}")


def matmul(ops: Operands) -> Iterator[str]:
    """`mm`, `bmm`: a constant second matrix is packed as a linear's weight."""
    first, second, out = ops.tensor("mat1"), ops.tensor("mat2"), ops.out
    if first and second and out:
        yield from _product(ops, first, second, out, bias="")


def addmm(ops: Operands) -> Iterator[str]:
    """`addmm`: the same with a bias."""
    bias, first, second, out = ops.tensor("bias"), ops.tensor("mat1"), ops.tensor("mat2"), ops.out
    if first and second and out:
        yield from copied_like(bias, out)
        yield from _product(ops, first, second, out, bias="_bias" if bias or not second.constant else "")


def linear(ops: Operands) -> Iterator[str]:
    """`linear`: the weight [N, K] is always packed."""
    source, weight, bias, out = ops.tensor("input"), ops.tensor("weight"), ops.tensor("bias"), ops.out
    if source and weight and weight.constant and out and len(weight.dims) >= 2:
        place = float_matrix_storage(ops.device, weight.dims[-2], weight.dims[-1])
        yield from float_matrix(weight, place)
        yield from copied_like(bias, out)
        yield _tiled("linear", source, out, bias="_bias" if bias else "", weight=f"_{place}")


def _product(ops: Operands, first: Tensor, second: Tensor, out: Tensor, bias: str) -> Iterator[str]:
    """Yield the names for a second matrix [.., K, N]."""
    if not second.constant:
        yield _tiled("matmul", first, out, bias, weight="")
    elif len(second.dims) >= 2:
        batch = second.dims[0] if len(second.dims) > 2 else 1
        place = float_matrix_storage(ops.device, second.dims[-1], second.dims[-2], batch)
        yield from float_matrix(second, place)
        yield _tiled("linear", first, out, bias, weight=f"_{place}")


def _tiled(shader: str, source: Tensor, out: Tensor, bias: str, weight: str) -> str:
    """pick_matmul_tiled_shader, pick_linear_shader: scalars for buffers of odd width, fewer rows for few threads."""
    odd = source.size(-1) % 4 or out.size(-1) % 4
    vector = "" if out.in_buffer and odd else "_vec"
    return f"{shader}{vector}{bias}{_rows(out)}_{storage(out)}{weight}_{dtype(out)}"


def _rows(out: Tensor) -> str:
    """Rows that a thread computes (pick_matmul_tile_m): four where that keeps enough threads, else two, else one."""
    columns, height, batch = ceil_div(out.size(-1), 4), out.size(-2), out.size(-3)
    for rows, suffix in ((4, ""), (2, "_tile_row_2")):
        if columns * ceil_div(height, rows) * batch >= _FEWEST_THREADS:
            return suffix
    return "_tile_row_1"


_MATRICES: Final = ("input", "mat1", "mat2")
_PLACES: Final = (
    packed_by_width(Code.PACKED_OTHERWISE, *_MATRICES),
    no_texture_from_a_buffer(*_MATRICES),
)
_HALF: Final = (Code.SUMS_IN_HALF,)
OPERATORS: Final = (
    *(
        Operator(
            f"aten.{name}.default",
            "mat1 mat2",
            rules=_PLACES,
            departs=_HALF,
            axes=product,
            shaders=matmul,
            weighty=True,
        )
        for name in ("mm", "bmm")
    ),
    Operator(
        "aten.addmm.default",
        "bias mat1 mat2 beta alpha",
        rules=_PLACES,
        departs=_HALF,
        axes=product,
        shaders=addmm,
        weighty=True,
    ),
    Operator(
        "aten.linear.default",
        "input weight bias",
        constants="weight bias",
        rules=(*_PLACES, batch_of_three),
        departs=_HALF,
        axes=times_a_weight,
        shaders=linear,
        weighty=True,
    ),
)
