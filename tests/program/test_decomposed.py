"""What is decomposed before the repairs: all that ExecuTorch would decompose after them, but what they look for."""

import re
from pathlib import Path

import torch
from programs import export, indices
from torch import nn
from torch._decomp import core_aten_decompositions

import vkfuse
from vkfuse.program.decomposed import KEPT, decompositions
from vkfuse.program.load import from_exported

_REWRITE = Path(vkfuse.__file__).parent / "rewrite"


def test_what_rules_look_for_is_kept():
    """A rule or a repair that names an operator which would be decomposed in front of it never sees one."""
    named = {
        name for path in _REWRITE.rglob("*.py") for name in re.findall(r"\baten\.(\w+)\b", path.read_text())
    }
    core = {str(of.overloadpacket).partition(".")[2] for of in core_aten_decompositions() if _is_of_torch(of)}
    assert not named & core - KEPT


def _is_of_torch(of):
    functional = isinstance(of, torch._ops.OpOverload) and not of._schema.is_mutable
    return functional and of.namespace == "aten" and "out" not in of._overloadname


class _Composed(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(100, 8)

    def forward(self, ids):
        rows = self.table(ids)
        scores = torch.tensordot(rows, rows[0, :2], ([2], [1])).logsumexp(-1)
        return torch.quantile(rows, 0.3, -1), nn.functional.softplus(rows).logit(0.1), scores


def test_decomposed():
    """Of operators made of others, none is left that no rule looks for, and values are the same."""
    exported = export(_Composed(), indices(1, 6))
    plain = from_exported(exported).exported
    left = {node.target for node in plain.graph.nodes}
    assert not left & decompositions().keys()
    assert torch.ops.aten.softplus.default in left
    given = exported.example_inputs[0]
    torch.testing.assert_close(plain.module()(*given), exported.module()(*given))
