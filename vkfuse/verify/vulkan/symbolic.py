"""Arithmetic on sizes: symbolic integers, 32 bits wide (impl/SymIntOps.cpp)."""

from collections.abc import Callable
from operator import add, floordiv, mul, sub
from typing import Final

from vkfuse.verify.vulkan.call import Call, Kernel


def _size(call: Call) -> int:
    return int(call.tensor(0).shape[call.integer(1)])


def _select(call: Call) -> int:
    """`(tensor, dim, index)`: one element as an integer; all other positions are 0."""
    flat = call.tensor(0).select(call.integer(1), call.integer(2)).reshape(-1)
    return int(flat[0].item())


def _binary(operation: Callable[[int, int], int]) -> Kernel:
    def run(call: Call) -> int:
        if operation is floordiv and call.args[1] == 0:
            raise call.fails("division by zero")
        return operation(call.integer(0), call.integer(1))

    return run


KERNELS: Final[dict[str, Kernel]] = {
    "sym_size.int": _size,
    "et_vk.select_as_symint.default": _select,
    "add": _binary(add),
    "sub": _binary(sub),
    "mul": _binary(mul),
    "floordiv": _binary(floordiv),
}
