"""A pack that is not the table is found, wherever it is wrong."""

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from programs import LanguageModel, export, indices, linear, lookup, quantize
from torch import nn

from vkfuse.options import LookupLayout, VulkanOptions
from vkfuse.program.load import from_exported
from vkfuse.quiet import quiet
from vkfuse.rewrite import plan as planning
from vkfuse.rewrite import prove as proving
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.rules import RULES
from vkfuse.runtime.versions import DEFAULT, find_runtime
from vkfuse.tables import floats as chunking
from vkfuse.tables.decisions import Rung
from vkfuse.tables.readers import Consumer

PLACES = [(0, 0, 1), (0, 0, 128), (99, 31, 64), (50, 7, 16)]  # row, byte, bit that flips

RUNTIME = find_runtime(DEFAULT)


@cache
def _planned(build):
    """The program, its constants, and the decision for its only table."""
    torch.manual_seed(0)
    with quiet():
        exported = from_exported(build()).exported
    (plan,) = planning.plan({"forward": exported}, RUNTIME)["forward"]
    return exported, Constants(exported), plan.decisions[0]


LOOKUP, LINEAR = lookup(2, 7), linear(5, 64, outputs=104)
GATHERED = lookup(2, 7, weight_dtype=torch.int8)


def _spoiled(proposal, **change):
    """The proposal with another pack."""
    return dataclasses.replace(proposal, pack=dataclasses.replace(proposal.pack, **change))


def _flipped(proposal, row, byte, bit):
    packed = proposal.pack.packed.copy()
    packed[row, byte] ^= bit
    return _spoiled(proposal, packed=packed)


@pytest.mark.parametrize("chunk", [64, 1000, 1 << 22], ids=["a row a chunk", "15 rows a chunk", "one chunk"])
@pytest.mark.parametrize("build", [LOOKUP, LINEAR], ids=["lookup", "linear"])
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_flipped_bit_is_found(place, build, chunk, monkeypatch):
    """One bit of one nibble in any row, however the rows are cut into chunks; the error is the step that it makes."""
    monkeypatch.setattr(chunking, "CHUNK_ELEMENTS", chunk)
    _, constants, decision = _planned(build)
    proposal = decision.proposal
    assert proving.prove(decision.site, proposal, constants).kind == "exact"
    row, byte, bit = place
    proof = proving.prove(decision.site, _flipped(proposal, *place), constants)
    scale = proposal.pack.scales[row, byte * 2 // proposal.pack.group_size]
    step = bit if bit < 16 else bit >> 4
    assert proof.kind == "rounded"
    assert proof.max_abs_error == pytest.approx(step * float(scale), rel=1e-5)


def test_nibbles_read_in_the_other_order_are_found():
    """Linear bytes marked as flat, and flat ones marked as linear, are no proof: each mark has one order."""
    exported, constants, linear = _planned(LOOKUP)
    (planned,) = planning.plan(
        {"forward": exported}, RUNTIME, VulkanOptions(lookup_layout=LookupLayout.FLAT)
    )["forward"]
    for decision, marked in ((linear, True), (planned.decisions[0], False)):
        assert decision.proposal.pack.is_linear_weight == marked
        other = _spoiled(decision.proposal, is_linear_weight=not marked)
        assert proving.prove(decision.site, other, constants).kind == "rounded"


def test_the_last_bit_of_a_scale_is_found():
    """A scale that differs by one unit in the last place is no proof."""
    _, constants, decision = _planned(LOOKUP)
    scales = decision.proposal.pack.scales.copy()
    scales[99, 1] = np.nextafter(scales[99, 1], np.float32(np.inf))
    proof = proving.prove(decision.site, _spoiled(decision.proposal, scales=scales), constants)
    assert proof.kind == "rounded"
    assert 0 < proof.max_abs_error < 1e-5


def test_a_wrong_integer_row_is_found():
    """The same holds for rows of one byte a weight."""
    _, constants, decision = _planned(GATHERED)
    assert decision.rung is Rung.GATHERED
    rows = decision.proposal.pack
    values = rows.values.copy()
    values[99, 63] ^= 1
    spoiled = dataclasses.replace(decision.proposal, pack=dataclasses.replace(rows, values=values))
    assert proving.prove(decision.site, spoiled, constants).kind == "rounded"


def test_a_rule_that_is_wrong_is_not_applied(monkeypatch):
    """A rule whose table does not prove exact is refused as `not-exact`, and the next one takes the site."""
    exported, _, decision = _planned(LOOKUP)
    wrong = _flipped(decision.proposal, *PLACES[0])
    gathered = RULES[Consumer.GATHER][-1]
    monkeypatch.setitem(RULES, Consumer.GATHER, (lambda *_: wrong, gathered))
    (plan,) = planning.plan({"forward": exported}, RUNTIME)["forward"]
    assert [d.rung for d in plan.decisions] == [Rung.GATHERED]
    assert [r.code for r in plan.decisions[0].refusals] == ["not-exact"]
    monkeypatch.setitem(RULES, Consumer.GATHER, (lambda *_: wrong,))
    (plan,) = planning.plan({"forward": exported}, RUNTIME)["forward"]
    assert [d.rung for d in plan.decisions] == [Rung.FOLDED]


def test_sites_of_one_table_are_planned_together():
    """A tied table is one table with two sites; the layer between is another."""
    torch.manual_seed(0)
    module = LanguageModel(128)
    module.head.weight = module.table.weight
    with quiet():
        quantize(quantize(module, nn.Embedding), nn.Linear)
        exported = from_exported(export(module, indices(2, 7))).exported
    plans = planning.plan({"forward": exported}, RUNTIME)["forward"]
    consumers = [[d.site.consumer for d in plan.decisions] for plan in plans]
    assert consumers == [[Consumer.GATHER, Consumer.MATMUL], [Consumer.MATMUL]]
    lookup_pack, linear_pack = (decision.proposal.pack for decision in plans[0].decisions)
    assert lookup_pack.packed is linear_pack.packed


def test_scales_of_its_own_are_a_pack_of_its_own():
    """A head with the integers of the lookup and other scales is one table with it, and is proved by its own scales."""
    torch.manual_seed(0)
    module = LanguageModel(128)
    module.head.weight = nn.Parameter(module.table.weight.detach() * 2)
    with quiet():
        quantize(quantize(module, nn.Embedding), nn.Linear)
        exported = from_exported(export(module, indices(2, 7))).exported
    decisions = planning.plan({"forward": exported}, RUNTIME)["forward"][0].decisions
    assert [d.site.consumer for d in decisions] == [Consumer.GATHER, Consumer.MATMUL]
    assert [d.rung for d in decisions] == [Rung.Q4, Rung.Q4]
    first, second = (decision.proposal.rebuild(0, 4) for decision in decisions)
    assert np.array_equal(first * 2, second)
