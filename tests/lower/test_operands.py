"""An edge graph's nodes as the judge sees them: names of the schema, greatest sizes, constants, and no guard on a size."""

import sys

import torch
from torch import nn
from torch.export import Dim

from vkfuse.lower.operands import constant_names, operands_of, operator_name
from vkfuse.pte.enums import VkDataType
from vkfuse.runtime.operands import Symbol


class _Program(nn.Module):
    """A normed linear of rows, the place of the largest as int64, a written buffer, a copy into channels_last."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x, images):
        self.seen.add_(1)
        rows = self.norm(self.linear(x)) + self.seen
        return (
            rows.sum((0, 1)),
            rows.argmax(-1),
            images.clone(memory_format=torch.channels_last),
            rows.shape[0] * 2,
        )


def _exported(length):
    inputs = torch.randn(3, 2, 8), torch.randn(1, 3, 4, 4)
    return torch.export.export(
        _Program().eval(), inputs, dynamic_shapes=({0: length}, None)
    ).run_decompositions()


def _calls(program):
    constants = constant_names(program)
    return {
        operator_name(node): operands_of(node, constants)
        for node in program.graph.nodes
        if node.op == "call_function"
    }


def test_operands_by_name():
    """Arguments by the names of the record, keywords and defaults among them; int64 is 32 bits wide in a delegate."""
    calls = _calls(_exported(Dim("length", max=64)))
    norm = calls["aten.native_layer_norm.default"]
    assert (norm.tensor("weight").constant, norm.tensor("bias").constant) == (True, True)
    assert (norm.tensor("input").dims, norm.tensor("input").dynamic) == ((64, 2, 8), {0})
    assert not norm.tensor("input").constant
    assert norm.integers("normalized_shape") == (8,)
    assert calls["aten.sum.dim_IntList"].integers("dim") == (0, 1)
    assert calls["aten.argmax.default"].out.dtype is VkDataType.INT32
    copy = calls["aten.clone.default"]
    assert (copy.tensor("self").order, copy.out.order) == ((), (0, 2, 3, 1))
    assert isinstance(calls["aten.sym_size.int"].output, Symbol)


def test_a_written_buffer_is_no_constant():
    """What a program writes is an input of its delegates."""
    program = _exported(Dim("length", max=64))
    assert constant_names(program) == {"p_linear_weight", "p_linear_bias", "p_norm_weight", "p_norm_bias"}


def test_sizes_are_not_guarded():
    """Asking for the greatest size of a dimension leaves its range as it was, without a bound too."""
    for length, greatest in ((Dim("length", max=64), 64), (Dim("length"), sys.maxsize)):
        program = _exported(length)
        before = dict(program.range_constraints)
        size, *_ = _calls(program)["aten.native_layer_norm.default"].tensor("input").dims
        assert (size, program.range_constraints) == (greatest, before)
