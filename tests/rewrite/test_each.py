"""How a repair is written: operands by the names of their schema, torch's functions on them as calls of operators."""

import pytest
import torch
from programs import export
from torch import nn
from torch.export import Dim

from vkfuse.program.load import from_exported
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand, operands
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten


class _Of(nn.Module):
    def __init__(self, compute):
        super().__init__()
        self._compute = compute

    def forward(self, *inputs):
        return self._compute(*inputs)


def _exported(compute, *inputs, dynamic=None):
    return from_exported(export(_Of(compute), *inputs, dynamic=dynamic)).exported


def _call(exported, target):
    return next(n for n in exported.graph.nodes if n.target == target)


def test_operands():
    """By position, by keyword and by default, what an operator is applied to under one name."""
    program = _exported(
        lambda x: torch.ops.aten.clamp(x, max=1.0).softmax(1, dtype=torch.float64), torch.ones(2, 3)
    )
    x, clamped, softmax, _ = program.graph.nodes
    assert operands(clamped) == {"x": x, "min": None, "max": 1.0}
    assert (operand(softmax, "dim"), operand(softmax, "dtype")) == (1, torch.float64)
    dequantized = torch.fx.Graph().call_function(
        torch.ops.torchao.dequantize_affine.default, (x, [1, 3]), {"input_dtype": torch.int8}
    )
    assert operand(dequantized, "x") is x
    assert operand(dequantized, "output_dtype") is torch.float32  # of which the schema has the number


def test_operands_that_no_schema_has():
    """A parameter that is no operand of each target fails when the repair is defined."""

    def wrong(x, keepdims):
        return x if keepdims else None

    with pytest.raises(TypeError, match="wrong: no operand keepdims of each of"):
        replaces(aten.sum.dim_IntList, code="code", detail="detail")(wrong)
    with pytest.raises(TypeError, match="no operand keepdims, x of"):
        replaces(code="code", detail="detail")(wrong)


_ARITHMETIC = {
    "numbers": lambda x: (1.0 - 2.0 * x + 1) / 3.0 - x * -x.abs() + x**2,
    "comparisons": lambda x: torch.where((x < 0) & (x != 1.0), x.exp(), x.clamp(None, 0.5)),
    "slices": lambda x: torch.cat([x[..., 1:], x[..., :1], x[:, 1:3]], 1),
    "several results": lambda x: x.topk(2, 1)[0] + x.topk(2, 1)[1],
    "types": lambda x: x.to(torch.int64).to(torch.float32).to(torch.float32),
    "functions": lambda x: torch.nn.functional.linear(torch.relu(x), x[:2], None),
    "operators": lambda x: aten.slice.Tensor(x, 1, 0, 2).softmax(-1).reshape([-1]),
}


@pytest.mark.parametrize("name", _ARITHMETIC)
def test_torch_on_operands(name):
    """A function of tensors written into a graph computes what it computes on tensors, whatever the length."""
    compute = _ARITHMETIC[name]

    @replaces(aten.sigmoid.default, code="code", detail="detail")
    def written(x: torch.Tensor) -> torch.Tensor:
        return compute(x)

    program = _exported(torch.sigmoid, torch.randn(3, 4), dynamic=(({0: Dim("length", min=2)},),))
    repaired, (note,) = written(program)
    assert note.nodes == ("sigmoid",)
    for length in (2, 5):
        x = torch.randn(length, 4)
        torch.testing.assert_close(repaired.module()(x), compute(x), rtol=0, atol=0)


def test_each_of_several_results():
    """Of an operator with several results a repair replaces each one."""

    @replaces(aten.max.dim, code="code", detail="detail")
    def apart(which: int, x: torch.Tensor, dim: int) -> torch.Tensor:
        return (x.argmax if which else x.amax)(dim)

    program, x = _exported(lambda x: torch.max(x, 1), torch.randn(3, 4)), torch.randn(3, 4)
    repaired, (note,) = apart(program)
    assert len(note.nodes) == 2
    for new, old in zip(repaired.module()(x), torch.max(x, 1), strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=0)


def test_the_same_call_again():
    """Operands that are changed by name stand where they stood, those between them at their defaults."""
    program = _exported(lambda x: aten.layer_norm.default(x, [4]), torch.randn(3, 4))
    node, editor = _call(program, aten.layer_norm.default), GraphEditor(program)
    with editor.before(node):
        zeros = editor.constant(torch.zeros(4), "zeros")
        again = editor.again(node, bias=zeros).node
    assert again.args == (editor.node(node.args[0]), [4], None, zeros)
    assert again.kwargs == {}
