"""Attention over caches by the runtime's own operator: only where a mask is shown to be causal from the position on."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.export import Dim, export

from vkfuse.program.operators import register_operators
from vkfuse.program.parts import with_parts
from vkfuse.rewrite.repairs import State, after_tables, cached_attention, repair
from vkfuse.rewrite.repairs.attention import attention_in_four_dimensions, write_out_attention
from vkfuse.rewrite.repairs.cached_attention import attention_over_caches
from vkfuse.rewrite.repairs.fold import fold_constants
from vkfuse.rewrite.repairs.in_place import cache_writes_in_place

COLUMNS = 12
RULES = (fold_constants, cache_writes_in_place, attention_in_four_dimensions, attention_over_caches)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Caches of a few rows, which are left to the shaders that read all of it, are taken as long ones."""
    monkeypatch.setattr(cached_attention, "LEAST", 1)


class Layer(nn.Module):
    """Queries [1, 4, S, 8] over caches [1, 2, 12, 8] that are written from `start` on; `mask` of the places of the rows."""

    def __init__(self, mask, scale=None):
        super().__init__()
        self.mask, self.scale = mask, scale
        for name in ("keys", "values"):
            self.register_buffer(name, torch.randn(1, 2, COLUMNS, 8))

    def forward(self, query, rows, start):
        at = torch.arange(rows.shape[2]) + start
        self.keys.index_copy_(2, at, rows)
        self.values.index_copy_(2, at, rows * 2)
        return nn.functional.scaled_dot_product_attention(
            query, self.keys, self.values, self.mask(at), scale=self.scale, enable_gqa=True
        )


def _columns():
    return torch.arange(COLUMNS)


def _up_to(at):
    return (_columns() <= at[:, None])[None, None]


def _table(at):
    return torch.ones(COLUMNS, COLUMNS, dtype=torch.bool).tril()[at]


CAUSAL = {
    "up to": _up_to,
    "before the next": lambda at: _columns() < at[:, None] + 1,
    "not behind": lambda at: ~(_columns() > at[:, None]),
    "filled": lambda at: torch.zeros(at.shape[0], COLUMNS).masked_fill(_columns() > at[:, None], -torch.inf),
    "lowest": lambda at: torch.where(_columns() <= at[:, None], 0.0, torch.finfo(torch.float32).min),
    "rows of a table": _table,
}
OTHER = {
    "a column more": lambda at: _columns() <= at[:, None] + 1,
    "a window": lambda at: (_columns() <= at[:, None]) & (_columns() > at[:, None] - 4),
    "but for the last column": lambda at: (_columns() <= at[:, None]) & (_columns() < COLUMNS - 1),
    "all": lambda at: _columns() >= at[:, None] - COLUMNS,
    "a penalty": lambda at: (_columns() - at[:, None]).clamp(min=0) * -3.0,
    "not low enough": lambda at: (_columns() > at[:, None]) * -100.0,
    "a bias": lambda at: (
        torch.zeros(at.shape[0], COLUMNS).masked_fill(_columns() > at[:, None], -torch.inf) - 1
    ),
}


def _exported(module, rows):
    register_operators()
    dynamic = None if rows else ({2: (length := Dim("rows", min=1, max=COLUMNS - 1))}, {2: length}, None)
    count = rows or 3
    inputs = torch.randn(1, 4, count, 8), torch.randn(1, 2, count, 8), torch.tensor([0])
    return export(module, inputs, dynamic_shapes=dynamic).run_decompositions({})


def _codes(exported):
    return {note.code for note in repair(exported, RULES).repairs}


@pytest.mark.parametrize("rows", [1, 3, None])
@pytest.mark.parametrize("mask", CAUSAL)
def test_causal_masks(mask, rows):
    """However it is spelled: no mask is left, and each call, first to last of the cache, computes what it did."""
    before = _exported(Layer(CAUSAL[mask]), rows)
    done = repair(before, RULES)
    targets = [node.target for node in done.exported.graph.nodes]
    assert targets.count(torch.ops.vkfuse.custom_sdpa.default) == 1
    assert torch.ops.aten.scaled_dot_product_attention.default not in targets
    assert not any("le." in str(target) or "masked" in str(target) for target in targets)
    one, other, at = before.module(), done.exported.module(), 0
    for count in [rows or n for n in (4, 1, 2)]:
        inputs = torch.randn(1, 4, count, 8), torch.randn(1, 2, count, 8), torch.tensor([at])
        torch.testing.assert_close(other(*inputs), one(*inputs))
        at += count
    count = rows or 5
    inputs = torch.randn(1, 4, count, 8), torch.randn(1, 2, count, 8), torch.tensor([COLUMNS - count])
    torch.testing.assert_close(other(*inputs), one(*inputs))


@pytest.mark.parametrize("rows", [1, 3, None])
@pytest.mark.parametrize("mask", OTHER)
def test_other_masks(mask, rows):
    """What a mask that is nearly causal lets a row see stays what it was."""
    assert "attention-over-caches" not in _codes(_exported(Layer(OTHER[mask]), rows))


@cache
def _looked_up(rows):
    """A program that looks its masks up in a table, and what the table is called."""
    table = torch.ones(COLUMNS, COLUMNS, dtype=torch.bool).tril()
    exported = _exported(Layer(lambda at: table[at]), rows)
    (name,) = (name for name, value in exported.constants.items() if value.dtype is torch.bool)
    return exported, name


@settings(max_examples=12)
@given(place=st.integers(0, COLUMNS**2 - 1), rows=st.sampled_from([1, 2, None]))
def test_one_value_of_a_mask(place, rows):
    """A table of masks of which one value is another than causal is no causal one, whichever a call can reach."""
    exported, name = _looked_up(rows)
    assert "attention-over-caches" in _codes(exported)
    table = exported.constants[name].clone()
    table.view(-1)[place] ^= True
    other = with_parts(exported, constants={**exported.constants, name: table})
    assert "attention-over-caches" not in _codes(other)


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_other_scales(scale):
    """The runtime's operator scales by the size of a head."""
    assert "attention-over-caches" not in _codes(_exported(Layer(_up_to, scale), 1))


@pytest.mark.parametrize("rows", [1, 3, None])
@pytest.mark.parametrize(
    ("mask", "empty"),
    [("a window", False), ("all", False), ("but for the last column", False), ("later", True)],
)
def test_rows_that_no_call_empties(mask, empty, rows, monkeypatch):
    """Only a mask that may empty a row has each of its rows looked at when a call runs."""
    monkeypatch.setattr(cached_attention, "LEAST", COLUMNS + 1)
    later = {"later": lambda at: _columns() >= at[:, None] + 4}
    before = _exported(Layer({**OTHER, **later}[mask]), rows)
    done = repair(before, (*RULES, write_out_attention)).exported
    looked = [
        node
        for node in done.graph.nodes
        if node.target in {torch.ops.aten.any.dim, torch.ops.aten.any.default}
    ]
    assert bool(looked) == empty
    count = rows or 4
    inputs = torch.randn(1, 4, count, 8), torch.randn(1, 2, count, 8), torch.tensor([COLUMNS - count])
    torch.testing.assert_close(done.module()(*inputs), before.module()(*inputs))


class Batch(Layer):
    """As many queries as a call has sequences, over one cache."""

    def forward(self, query, rows, start):
        at = torch.arange(rows.shape[2]) + start
        self.keys.index_copy_(2, at, rows)
        mask = self.mask(at).expand(query.shape[0], 1, rows.shape[2], COLUMNS)
        shape = query.shape[0], 2, COLUMNS, 8
        keys, values = self.keys.expand(shape), self.values.expand(shape)
        return nn.functional.scaled_dot_product_attention(query, keys, values, mask, enable_gqa=True)


def test_a_mask_of_a_dynamic_batch():
    """What depends on another size than the rows' is not evaluated."""
    register_operators()
    inputs = torch.randn(3, 4, 1, 8), torch.randn(1, 2, 1, 8), torch.tensor([0])
    dynamic = ({0: Dim("batch", min=2, max=8)}, None, None)
    before = export(Batch(_up_to), inputs, dynamic_shapes=dynamic).run_decompositions({})
    done = repair(before, (*RULES, write_out_attention))
    assert {"cache-writes-in-place", "attention-written-out"} <= {note.code for note in done.repairs}
    inputs = torch.randn(5, 4, 1, 8), torch.randn(1, 2, 1, 8), torch.tensor([7])
    torch.testing.assert_close(done.exported.module()(*inputs), before.module()(*inputs))


def test_what_torch_cannot_evaluate_for_several_positions_at_once():
    """It stays what it was."""

    def numbers(at):
        return torch.where(at.nonzero().sum() >= 0, _columns() <= at[:, None], False)

    assert "attention-over-caches" not in _codes(_exported(Layer(numbers), 1))


def test_since():
    """Runtimes before 1.5.0 were not seen to compute it, and state that stays outside is not written in place."""
    assert attention_over_caches in after_tables(half=False, state=State.IN_PLACE, version=(1, 5, 0))
    assert attention_over_caches not in after_tables(half=False, state=State.IN_PLACE, version=(1, 4, 1))
