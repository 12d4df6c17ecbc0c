"""ExecuTorch's own scalar kernels (kernels/prim_ops/register_prim_ops.cpp): inputs, then the output."""

import math
import operator
from collections.abc import Callable
from typing import Any, Final

import torch

Prim = Callable[..., Any]


def _view(value: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    return value.view(sizes)


def _size(value: torch.Tensor, dim: int) -> int:
    return int(value.shape[dim])


def _item(value: torch.Tensor) -> int | float | bool:
    return value.item()


PRIMS: Final[dict[str, Prim]] = {
    "aten::_local_scalar_dense": _item,
    "aten::sym_numel": lambda value: int(value.numel()),
    "aten::sym_size.int": _size,
    "executorch_prim::add.Scalar": operator.add,
    "executorch_prim::ceil.Scalar": math.ceil,
    "executorch_prim::eq.Scalar": operator.eq,
    "executorch_prim::et_view.default": _view,
    "executorch_prim::floordiv.Scalar": operator.floordiv,
    "executorch_prim::floordiv.int": operator.floordiv,
    "executorch_prim::ge.Scalar": operator.ge,
    "executorch_prim::gt.Scalar": operator.gt,
    "executorch_prim::le.Scalar": operator.le,
    "executorch_prim::lt.Scalar": operator.lt,
    "executorch_prim::mod.Scalar": operator.mod,
    "executorch_prim::mod.int": operator.mod,
    "executorch_prim::mul.Scalar": operator.mul,
    "executorch_prim::neg.Scalar": operator.neg,
    "executorch_prim::round.Scalar": round,
    "executorch_prim::sub.Scalar": operator.sub,
    "executorch_prim::sym_float.Scalar": float,
    "executorch_prim::sym_int.Scalar": int,
    "executorch_prim::sym_ite.Scalar": lambda condition, yes, no: yes if condition else no,
    "executorch_prim::sym_max.Scalar": max,
    "executorch_prim::sym_min.Scalar": min,
    "executorch_prim::sym_not.Scalar": operator.not_,
    "executorch_prim::truediv.Scalar": operator.truediv,
    "executorch_prim::trunc.Scalar": math.trunc,
}
