"""ExecuTorch's own operator for Qwen3.5's linear attention, written out."""

import pytest
import torch
from torch import nn

from vkfuse.program.load import from_exported
from vkfuse.program.operators import register_operators
from vkfuse.rewrite.repairs.llm_operators import llm_operators_written_out

HEADS, KEYS, VALUES = 2, 4, 6


class _Rule(nn.Module):
    """A recurrence over rows, and the state in its end; with queries of two heads for each key head."""

    def forward(self, query, key, value, decay, beta, state):
        return torch.ops.llama.gated_delta_rule.default(query, key, value, decay, beta, state)


def _inputs(rows, *, channels):
    """Random operands; `channels` says whether each column of a key decays by itself."""
    shapes = (
        *((2, 2 * HEADS, rows, KEYS), (2, HEADS, rows, KEYS), (2, HEADS, rows, VALUES)),
        *(
            (2, HEADS, rows, KEYS) if channels else (2, HEADS, rows),
            (2, HEADS, rows),
            (2, HEADS, KEYS, VALUES),
        ),
    )
    return tuple(torch.rand(shape) for shape in shapes)


def _by_rows(query, key, value, decay, beta, state):
    """The same by loops over batches, heads and rows, in float64."""
    out, state = torch.zeros(*query.shape[:3], VALUES).double(), state.double().clone()
    for b, h, t in torch.cartesian_prod(*map(torch.arange, (2, HEADS, value.shape[2]))).tolist():
        faded = state[b, h] * decay[b, h, t].double().reshape(-1, 1)
        delta = (value[b, h, t] - key[b, h, t].double() @ faded) * beta[b, h, t]
        state[b, h] = faded + torch.outer(key[b, h, t].double(), delta)
        for q in (2 * h, 2 * h + 1):
            out[b, q, t] = query[b, q, t].double() @ state[b, h]
    return out.float(), state.float()


@pytest.mark.parametrize(("rows", "channels"), [(1, False), (1, True), (5, False), (16, True)])
def test_recurrence_step_by_step(rows, channels):
    """What queries read, and the state after the last row, of one row and of sixteen; nothing of the operator is left."""
    register_operators()
    inputs = _inputs(rows, channels=channels)
    before = from_exported(torch.export.export(_Rule(), inputs)).exported
    after, (note,) = llm_operators_written_out(before)
    assert (note.code, len(note.nodes)) == ("llm-operators-written-out", 2)
    torch.testing.assert_close(after.module()(*inputs), _by_rows(*inputs), rtol=1e-5, atol=1e-5)


def test_long_recurrences_stay():
    """More rows than sixteen are left to ExecuTorch's own kernel."""
    register_operators()
    before = from_exported(torch.export.export(_Rule(), _inputs(17, channels=False))).exported
    assert llm_operators_written_out(before) == (before, ())
