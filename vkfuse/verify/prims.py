"""ExecuTorch's own scalar kernels (kernels/prim_ops/register_prim_ops.cpp): inputs, then the output."""

import math
import operator
from collections.abc import Callable
from typing import Any, Final

import torch

Prim = Callable[..., Any]

_OPERATORS: Final = ("add", "eq", "floordiv", "ge", "gt", "le", "lt", "mod", "mul", "neg", "sub", "truediv")
PRIMS: Final[dict[str, Prim]] = {
    "aten::_local_scalar_dense": torch.Tensor.item,
    "aten::sym_numel": torch.Tensor.numel,
    "aten::sym_size.int": torch.Tensor.size,
    "executorch_prim::ceil.Scalar": math.ceil,
    "executorch_prim::et_view.default": torch.Tensor.view,
    "executorch_prim::floordiv.int": operator.floordiv,
    "executorch_prim::mod.int": operator.mod,
    "executorch_prim::round.Scalar": round,
    "executorch_prim::sym_float.Scalar": float,
    "executorch_prim::sym_int.Scalar": int,
    "executorch_prim::sym_ite.Scalar": lambda condition, yes, no: yes if condition else no,
    "executorch_prim::sym_max.Scalar": max,
    "executorch_prim::sym_min.Scalar": min,
    "executorch_prim::sym_not.Scalar": operator.not_,
    "executorch_prim::trunc.Scalar": math.trunc,
    **{f"executorch_prim::{name}.Scalar": getattr(operator, name) for name in _OPERATORS},
}
