"""What half precision leaves next to an edge, where a program jumps."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.export import export

from vkfuse.program.load import from_exported
from vkfuse.verify.compare import Tolerance
from vkfuse.verify.comparison import Comparison
from vkfuse.verify.inputs import Sample
from vkfuse.verify.reference import Reference

HALF = Tolerance(arithmetic=torch.float16)


class _Jumps(nn.Module):
    def forward(self, x, whole):
        floor = torch.floor(x * 3)
        return (
            *(floor, x > 0.7, torch.div(x, 0.3, rounding_mode="floor"), nn.functional.hardshrink(x)),
            *(torch.round(x * 20) / 20, floor[:, :64] * 2 + floor[:, 64:], (x * 4).to(torch.int32)),
            whole >= 1,
        )


@pytest.fixture(scope="module")
def compared():
    """The program's inputs and a file's outputs, of which it says whether they are the program's."""
    torch.manual_seed(0)
    inputs = torch.randn(512, 128), torch.randint(0, 3, (64,)).float()
    program = from_exported(export(_Jumps(), inputs, strict=False))
    reference = Reference(program.exported)
    sample = Sample(label="random", values=inputs)

    def passed(got, tolerance=HALF):
        comparison = Comparison(SimpleNamespace(noted=frozenset()), reference, tolerance)
        return [output.passed for output in comparison.compared(sample, got).outputs]

    in_half = _Jumps()(*(each.half() for each in inputs))
    return passed, inputs, [each.float() if each.is_floating_point() else each for each in in_half]


def test_either_side_of_an_edge_is_right(compared):
    """In half precision some values fall to the other side in each output; in float32 that is wrong."""
    passed, inputs, got = compared
    right = _Jumps()(*inputs)
    assert [
        bool(((a - b).abs() > 0.02).any())
        for a, b in zip(map(torch.Tensor.float, got), map(torch.Tensor.float, right), strict=True)
    ] == [*[True] * 7, False]
    assert passed(got) == [True] * 8
    assert passed(got, Tolerance()) == [*[False] * 7, True]
    assert passed(got, Tolerance(atol=0.02)) == [*[False] * 7, True]


@pytest.mark.parametrize(
    ("at", "wrong"),
    [
        (0, lambda floor: floor + (torch.arange(128) == 5)),
        (0, lambda floor: torch.where(floor == 2, torch.nan, floor)),
        (0, lambda floor: torch.where(floor == 2, torch.inf, floor)),
        (1, torch.logical_not),
        (1, torch.zeros_like),
        (3, lambda shrunk: torch.where(shrunk.abs() < 0.6, 0, shrunk)),
        (4, lambda rounded: rounded + 0.05),
        (5, lambda sums: sums + 1),
        (6, lambda cut: cut + 1),
        (7, torch.zeros_like),
    ],
)
def test_what_is_next_to_no_edge_is_its_own(compared, at, wrong):
    """A step too many elsewhere, another order of what half precision holds exactly, and no numbers are wrong."""
    passed, _, got = compared
    assert not all(passed([wrong(each) if i == at else each for i, each in enumerate(got)]))


def test_more_than_or_equal_is_not_more_than(compared):
    """Whole numbers are exact in half precision: none is next to an edge."""
    passed, (_, whole), got = compared
    assert not all(passed([*got[:7], whole > 1]))
