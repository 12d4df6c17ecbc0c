"""Faults put into good files, each of which a device would follow without a word."""

import faults
import pytest
import stock
import torch

from vkfuse.pte import parse_pte
from vkfuse.verify.verify import VerifyOptions, verify_file

_LINEAR_8DA4W = "et_vk.linear_dq8ca_q4gsw.default"
# file, operator, positions of weight, scales and group size
SITES = [
    ("lookup", stock.LOOKUP, (0, 1, 2)),
    ("linear-rows", stock.LINEAR, (1, 2, 3)),
    ("8da4w", _LINEAR_8DA4W, (3, 5, 6)),
]
sites = pytest.mark.parametrize(("name", "operator", "arguments"), SITES, ids=[site[0] for site in SITES])


def _verdict(file, data):
    return verify_file(parse_pte(data), file.exported, VerifyOptions(seeds=1))


@sites
def test_the_good_file_passes(name, operator, arguments, lowered):  # noqa: ARG001 - the sites of the other tests
    """Without a fault each file passes, so that what follows shows the fault."""
    file = lowered(name)
    assert _verdict(file, file.data).ok


@sites
def test_one_weight_byte(name, operator, arguments, lowered):
    """One bit of one weight is found, in a row that no input of a lookup reaches too, and the row is named."""
    file = lowered(name)

    def flip(weight: torch.Tensor) -> torch.Tensor:
        weight[41, 5] ^= 0x10
        return weight

    verdict = _verdict(file, faults.with_constant(file.data, operator, arguments[0], flip))
    assert verdict.status == "differs"
    (table,) = [table for table in verdict.tables if table.differing]
    assert (table.differing, table.first_row, table.operator) == (1, 41, operator)


@sites
def test_swapped_nibbles(name, operator, arguments, lowered):
    """Even and odd columns in each other's place are found, and the operator is named."""
    file = lowered(name)
    data = faults.with_constant(
        file.data, operator, arguments[0], lambda weight: (weight >> 4) | (weight << 4)
    )
    verdict = _verdict(file, data)
    assert verdict.status == "differs"
    assert verdict.departure.operator == operator


@sites
def test_transposed_scales(name, operator, arguments, lowered):
    """Scales laid out the other way round are found."""
    file = lowered(name)
    data = faults.with_constant(
        file.data, operator, arguments[1], lambda scales: scales.t().contiguous().reshape(scales.shape)
    )
    verdict = _verdict(file, data)
    assert verdict.status == "differs"
    assert verdict.departure.operator == operator


@sites
@pytest.mark.parametrize("group", [16, 64])
def test_wrong_group_size(name, operator, arguments, group, lowered):
    """A group size that is not the table's is found; the scales then end too soon or too late."""
    file = lowered(name)
    verdict = _verdict(file, faults.with_integer(file.data, operator, arguments[2], group))
    assert verdict.status == "differs"
    assert verdict.departure.operator == operator


def test_wrong_weight_sums(lowered):
    """Sums of weights that are not the weights' own are found: the runtime corrects zero points with them."""
    file = lowered("8da4w")
    sums = faults.with_constant(
        file.data, _LINEAR_8DA4W, 4, lambda sums: sums + torch.eye(*sums.shape).int() * 50
    )
    assert _verdict(file, sums).status == "differs"
