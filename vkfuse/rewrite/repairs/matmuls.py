"""Products of matrices in a wider type than their own.

``aten._int_mm`` (int8-dynamic-activation int8-weight linears) has no kernel in any ExecuTorch runtime. It is written as an
integer matmul, which the portable library has; the weight stays one byte and is widened at run time. Exact: int32 sums of
int8 products are the operator's own.

Half-precision products are summed in half by the shaders of buffers and by the portable CPU kernels (`sums-in-half`), where
torch sums in float32: long ones of two activations are multiplied in float32. A constant matrix would be stored twice as
large; there verify says how far off the file is.
"""

import torch
from torch import fx

from vkfuse.program.tensors import described
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operands
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten


_LONG = 512


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
