"""Products of float matrices (Matmul.cpp, Linear.cpp, GemmCommon.cpp)."""

from collections.abc import Iterator
from typing import Final

from vkfuse.pte.calls import Call
from vkfuse.pte.shader_names.packing import copied_like, float_matrix, float_matrix_storage
from vkfuse.pte.shader_names.spelling import Namer, dtype, in_buffer, size
from vkfuse.pte.vulkan import VkTensor

_FEWEST_THREADS: Final = 4096  # kMinOccupancyThreads


def matmul(call: Call) -> Iterator[str]:
    """`mm`, `bmm`: a constant second matrix is packed as a linear's weight."""
    first, second, out = call.tensor(0), call.tensor(1), call.tensor(-1)
    if first and second and out:
        yield from _product(call, first, second, out, bias="")


def addmm(call: Call) -> Iterator[str]:
    """`addmm`: the same with a bias."""
    bias, first, second, out = call.tensor(0), call.tensor(1), call.tensor(2), call.tensor(-1)
    if first and second and out:
        yield from copied_like(bias, out, call.site)
        yield from _product(call, first, second, out, bias="_bias" if bias or not second.constant else "")


def linear(call: Call) -> Iterator[str]:
    """`linear`: the weight [N, K] is always packed."""
    source, weight, bias, out = call.tensor(0), call.tensor(1), call.tensor(2), call.tensor(-1)
    if source and weight and weight.constant and out and len(weight.dims) >= 2:
        storage = float_matrix_storage(weight.dims[-2], weight.dims[-1])
        yield from float_matrix(weight, storage)
        yield from copied_like(bias, out, call.site)
        yield _tiled(call, "linear", source, out, bias="_bias" if bias else "", weight=f"_{storage}")


def _product(call: Call, first: VkTensor, second: VkTensor, out: VkTensor, bias: str) -> Iterator[str]:
    """Yield the names for a second matrix [.., K, N]."""
    if not second.constant:
        yield _tiled(call, "matmul", first, out, bias, weight="")
    elif len(second.dims) >= 2:
        batch = second.dims[0] if len(second.dims) > 2 else 1
        storage = float_matrix_storage(second.dims[-1], second.dims[-2], batch)
        yield from float_matrix(second, storage)
        yield _tiled(call, "linear", first, out, bias, weight=f"_{storage}")


def _tiled(call: Call, operator: str, source: VkTensor, out: VkTensor, bias: str, weight: str) -> str:
    """pick_matmul_tiled_shader, pick_linear_shader: scalars for buffers of odd width, fewer rows for few threads."""
    odd = size(source, -1) % 4 or size(out, -1) % 4
    vector = "" if in_buffer(call.site, out) and odd else "_vec"
    return f"{operator}{vector}{bias}{_rows(out)}_{call.site.storage_suffix(out)}{weight}_{dtype(out)}"


def _rows(out: VkTensor) -> str:
    """Rows that a thread computes (pick_matmul_tile_m): four where that keeps enough threads, else two, else one."""
    columns, height, batch = -(-size(out, -1) // 4), size(out, -2), size(out, -3)
    for rows, suffix in ((4, ""), (2, "_tile_row_2")):
        if columns * -(-height // rows) * batch >= _FEWEST_THREADS:
            return suffix
    return "_tile_row_1"


NAMERS: Final[dict[str, Namer]] = {
    "aten.mm.default": matmul,
    "aten.bmm.default": matmul,
    "aten.addmm.default": addmm,
    "aten.linear.default": linear,
}
