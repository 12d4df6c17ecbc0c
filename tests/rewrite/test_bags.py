"""EmbeddingBags as lookups: every mode, length, padding and weight, against the operator itself."""

import itertools

import pytest
import torch
from programs import export
from torch import nn
from torch.export import Dim

from vkfuse.program.load import from_exported
from vkfuse.rewrite.repairs import repair
from vkfuse.rewrite.repairs.embeddings import bags_as_lookups

OFFSETS = {"even": [0, 3, 6], "uneven": [0, 1, 5], "one empty": [0, 4, 4]}


class _Bags(nn.Module):
    """Bags of a table of 20 rows; `offsets` None: a bag is a row of the indices."""

    def __init__(self, offsets=None, **options):
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 8, **options)
        self.offsets = None if offsets is None else nn.Buffer(torch.tensor(offsets))

    def forward(self, indices, offsets=None, weights=None):
        return self.bag(indices, self.offsets if offsets is None else offsets, per_sample_weights=weights)


def _same(module, *inputs, dynamic=None, others=()):
    """Whether the repaired program computes what the module does, and reads no bag."""
    program = from_exported(export(module, *inputs, dynamic=dynamic)).exported
    repaired = repair(program, (bags_as_lookups,))
    assert [made.code for made in repaired.repairs] == ["bag-as-lookup"]
    calls = (str(node.target) for node in repaired.exported.graph.nodes if node.op == "call_function")
    assert not any("embedding_bag" in name for name in calls)
    for given in (inputs, *others):
        with torch.no_grad():
            torch.testing.assert_close(repaired.exported.module()(*given), module(*given))


@pytest.mark.parametrize("padding", [None, 3])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_one_length(mode, padding):
    """Bags that are the rows of a matrix, of a dynamic number too; one of them is all padding."""
    indices = torch.randint(0, 20, (4, 5))
    indices[1], indices[2, 1] = 3, 3
    module = _Bags(mode=mode, padding_idx=padding).eval()
    _same(module, indices)
    bags = Dim("bags", min=1, max=9)
    _same(module, indices, dynamic=({0: bags},), others=[(torch.randint(0, 20, (7, 5)),)])


@pytest.mark.parametrize(("name", "mode"), [*itertools.product(OFFSETS, ["sum", "mean", "max"])])
def test_bags_of_known_offsets(name, mode):
    """Bags of any known lengths, empty ones too."""
    indices = torch.randint(0, 20, (9,))
    _same(_Bags(OFFSETS[name], mode=mode).eval(), indices)
    _same(_Bags(OFFSETS[name], mode=mode, padding_idx=3).eval(), indices)
    _same(_Bags([*OFFSETS[name], 9], mode=mode, include_last_offset=True).eval(), indices)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_computed_offsets(mode, last):
    """Offsets that are an input, with the end of the last bag or without."""
    end = [9] * last
    given = [(torch.randint(0, 20, (9,)), torch.tensor([*offsets, *end])) for offsets in OFFSETS.values()]
    _same(_Bags(mode=mode, include_last_offset=last).eval(), *given[0], others=given[1:])


def test_weighted_bags():
    """Weights of the samples multiply the rows."""
    indices, weights = torch.randint(0, 20, (4, 5)), torch.rand(4, 5)
    _same(_Bags(mode="sum").eval(), indices, None, weights)
