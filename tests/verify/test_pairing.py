"""A file against a program by nothing but both: which table is which, in float and in half precision."""

from functools import cache

import faults
import pytest
import stock
import torch
from programs import Positions, export, indices, quantize
from torch import nn

import vkfuse
from vkfuse.options import BaselineChoice, VulkanOptions
from vkfuse.program.load import from_exported
from vkfuse.pte import parse_pte
from vkfuse.quiet import quiet
from vkfuse.verify.verify import VerifyOptions, verify_file

FLOAT_LOOKUP = "aten.embedding.default"
MATRIX = 128 * 128


@cache
def _exported():
    torch.manual_seed(0)
    with quiet():
        return from_exported(export(quantize(Positions(), nn.Linear), indices(2, 7, rows=128))).exported


@pytest.fixture(scope="module", params=[False, True], ids=["float", "half"])
def written(request, tmp_path_factory):
    """(bytes of a file, whether it is in half precision)."""
    path = tmp_path_factory.mktemp("pairing") / "model.pte"
    vulkan = VulkanOptions(fp16=request.param)
    vkfuse.optimize(_exported(), path, baseline=BaselineChoice.NONE, vulkan=vulkan, verify=False)
    return path.read_bytes(), request.param


def _verdict(data):
    return verify_file(parse_pte(data), _exported(), VerifyOptions(seeds=1))


def _matched(verdict):
    return {
        (t.operator.split(".")[1], t.matches, t.values, bool(t.rounded), t.differing) for t in verdict.tables
    }


def test_a_right_file(written):
    """Each table is found, the float one too, of three that are 128 x 128; half precision rounds every one."""
    data, half = written
    verdict = _verdict(data)
    assert verdict.ok, verdict.message
    assert _matched(verdict) == {
        ("embedding", "table.weight", MATRIX, half, 0),
        ("linear_q4gsw", "first.weight", MATRIX, half, 0),
        ("linear_q4gsw", "second.weight", MATRIX, half, 0),
    }


def _flip(weight):
    weight[41, 5] ^= 0x10
    return weight


def _last_bit(table):
    table.view({2: torch.int16, 4: torch.int32}[table.element_size()])[41, 5] ^= 1
    return table


@pytest.mark.parametrize(
    ("operator", "argument", "change", "name"),
    [(stock.LINEAR, 1, _flip, "first.weight"), (FLOAT_LOOKUP, 0, _last_bit, "table.weight")],
    ids=["one nibble", "the last bit of a float"],
)
def test_one_wrong_value(written, operator, argument, change, name):
    """One value is found in half precision as in float, in the table that it belongs to."""
    data, _ = written
    verdict = _verdict(faults.with_constant(data, operator, argument, change))
    assert verdict.status == "differs"
    (table,) = [table for table in verdict.tables if table.differing]
    assert (table.matches, table.differing, table.first_row) == (name, 1, 41)


def test_a_table_that_is_no_longer_alike(written):
    """A weight whose nibbles changed places resembles nothing: it stands where the program's weight is not found."""
    data, _ = written
    swapped = faults.with_constant(data, stock.LINEAR, 1, lambda weight: (weight >> 4) | (weight << 4))
    verdict = _verdict(swapped)
    assert verdict.status == "differs"
    (table,) = [table for table in verdict.tables if table.differing]
    assert (table.operator, table.matches, table.values) == (stock.LINEAR, "first.weight", MATRIX)
    assert table.differing > MATRIX // 2
