"""Each repair alone: it fires where it should, and the program computes what it did, bit for bit where it can."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.export import Dim

from vkfuse.errors import LoweringError
from vkfuse.measure.stored import matrices
from vkfuse.measure.tables import ConstantTensor
from vkfuse.program.load import from_exported
from vkfuse.program.parts import constants_of
from vkfuse.pte.enums import ScalarType
from vkfuse.rewrite.bounds import lower_bound
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.repairs import AFTER_TABLES, BEFORE_SURVEY, CONTRACTS, State, after_tables, repair
from vkfuse.rewrite.repairs.arithmetic import (
    group_norms_in_four_dimensions,
    scalars_as_tensors,
    write_out_softplus,
)
from vkfuse.rewrite.repairs.assembled import assignments_as_concatenation, rows_as_slices
from vkfuse.rewrite.repairs.attention import write_out_attention
from vkfuse.rewrite.repairs.caches import cache_writes_as_choices, cache_writes_as_products
from vkfuse.rewrite.repairs.contract import Contract
from vkfuse.rewrite.repairs.convolutions import convolutions_as_shaders_take_them
from vkfuse.rewrite.repairs.cumulated import cumulative_sums_in_steps
from vkfuse.rewrite.repairs.dimensions import operators_in_four_dimensions, sums_in_four_dimensions
from vkfuse.rewrite.repairs.each import Repair
from vkfuse.rewrite.repairs.fills import FLOOR, LOWEST, raise_mask_fills, raise_mask_fills_in_half
from vkfuse.rewrite.repairs.fold import fold_constants
from vkfuse.rewrite.repairs.functions import logarithms_of_one_more
from vkfuse.rewrite.repairs.in_place import cache_writes_in_place
from vkfuse.rewrite.repairs.matmuls import computed_matrices_as_batches, long_products_in_parts
from vkfuse.rewrite.repairs.once import ands_with_true, computed_once
from vkfuse.rewrite.repairs.outer_writes import scattered_rows_looked_up, writes_along_one_dimension
from vkfuse.rewrite.repairs.permutations import permutations_in_one
from vkfuse.rewrite.repairs.reductions import extremes_alone, reductions_keep_dimensions
from vkfuse.rewrite.repairs.repeats import repeats_as_concatenation, repeats_as_rows
from vkfuse.rewrite.repairs.resized import expansions_as_broadcasts
from vkfuse.rewrite.repairs.stacks import stacks_as_slices
from vkfuse.rewrite.repairs.states import copies_as_sources, equal_state_kept_once, unread_state_dropped

aten = torch.ops.aten


def _program(module, *inputs, dynamic=None):
    return from_exported(torch.export.export(module.eval(), inputs, dynamic_shapes=dynamic)).exported


def _same(before, after, *calls):
    """Both programs give the same bits, call after call: what they keep in buffers counts too."""
    old, new = (copy.deepcopy(exported).module() for exported in (before, after))
    for inputs in calls:
        with torch.no_grad():
            torch.testing.assert_close(new(*inputs), old(*inputs), rtol=0, atol=0, equal_nan=True)


class _Cache(nn.Module):
    """Writes `row` [1, 2, 1, 4] into a cache [1, 2, 8, 4] at `position` int [1], and reads it all."""

    def __init__(self, write):
        super().__init__()
        self.register_buffer("cache", torch.randn(1, 2, 8, 4))
        self._write = write

    def forward(self, row, position):
        self._write(self.cache, row, position)
        return self.cache * 2


def _index_copy(cache, row, position):
    cache.index_copy_(2, position, row)


def _assign(cache, row, position):
    cache[:, :, position] = row


def _assign_negative_dimension(cache, row, position):
    cache.index_copy_(-2, position, row)


@pytest.mark.parametrize("write", [_index_copy, _assign, _assign_negative_dimension])
def test_cache_writes(write):
    """A write at a computed position is a choice; infinities and NaN of other rows stay out of it."""
    before = _program(_Cache(write), torch.randn(1, 2, 1, 4), torch.tensor([3]))
    after, (note,) = cache_writes_as_choices(before)
    assert note.code == "cache-writes-as-choices"
    targets = {n.target for n in after.graph.nodes}
    assert aten.where.self in targets
    assert not targets & {aten.index_copy.default, aten.index_put.default}
    rows = [torch.randn(1, 2, 1, 4), torch.full((1, 2, 1, 4), torch.nan), torch.full((1, 2, 1, 4), torch.inf)]
    _same(
        before,
        after,
        *((row, torch.tensor([at])) for row, at in zip([*rows, rows[0]], (0, 7, 3, 7), strict=True)),
    )


def test_cache_writes_left_alone():
    """Several rows, integers, added rows and some of a row's columns are no choice between two values."""

    class Several(nn.Module):
        def forward(self, cache, row, position, integers):
            column = cache.scatter(0, position[:, None].expand(1, 1), row[:1, :1])
            many = cache.index_copy(0, position.repeat(2), row)
            added = cache.index_put((position,), row[:1], accumulate=True)
            return column, many, added, integers.index_copy(0, position, integers[:1])

    inputs = (torch.randn(8, 4), torch.randn(2, 4), torch.tensor([3]), torch.arange(8))
    before = _program(Several(), *inputs)
    assert cache_writes_as_choices(before) == (before, ())


@pytest.mark.parametrize(("most", "codes"), [(8, ["cache-writes-as-products"]), (9, [])])
def test_cache_writes_at_any_positions(most, codes):
    """Rows at any positions are a product; not where more than the cache has may come, as in a ring: the last one stays."""
    count = Dim("count", min=2, max=most)
    before = _program(
        _Cache(_index_copy),
        torch.randn(1, 2, 3, 4),
        torch.tensor([3, 1, 6]),
        dynamic=({2: count}, {0: count}),
    )
    after, notes = cache_writes_as_products(before)
    assert [note.code for note in notes] == codes
    positions = ([7, 0, 3], [2, 5], [*range(8)])
    _same(before, after, *((torch.randn(1, 2, len(at), 4), torch.tensor(at)) for at in positions))


def _by_all(cache, rows, start):
    batches, heads = (torch.arange(size) for size in cache.shape[:2])
    positions = torch.arange(rows.shape[2]) + start
    cache[batches[:, None, None], heads[None, :, None], positions[None, None, :]] = rows


def _by_first_and_third(cache, rows, start):
    positions = torch.arange(rows.shape[2]) + start
    cache[torch.arange(cache.shape[0])[:, None], :, positions[None]] = rows.transpose(1, 2)


def _by_heads_behind_positions(cache, rows, start):
    positions = torch.arange(rows.shape[2]) + start
    cache[:, torch.arange(cache.shape[1])[None], positions[:, None]] = rows.transpose(1, 2)


def _by_pairs_of_one(cache, rows, start):
    cache[torch.zeros(1, dtype=torch.int64), :, start] = rows[:1, :, 0]


@pytest.mark.parametrize(
    ("write", "batches"),
    [
        *((write, n) for write in (_by_all, _by_first_and_third, _by_heads_behind_positions) for n in (1, 2)),
        (_by_pairs_of_one, 1),
    ],
)
@pytest.mark.parametrize("count", [1, 3, None])
def test_writes_by_several_index_tensors(write, batches, count):
    """Index tensors that count through whole dimensions leave one, in whatever order the rows are laid out."""

    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("cache", torch.randn(batches, 2, 8, 4))

        def forward(self, rows, start):
            write(self.cache, rows, start)
            return self.cache * 2

    given, dynamic = (torch.randn(batches, 2, count or 2, 4), torch.tensor([3])), None
    if count is None:
        dynamic = ({2: Dim("rows", min=1, max=8)}, None)
    before = _program(Writes(), *given, dynamic=dynamic)
    done = repair(before, (fold_constants, writes_along_one_dimension))
    (put,) = (n for n in done.exported.graph.nodes if n.target == aten.index_put.default)
    assert put.args[1][:2] == [None, None]
    assert "writes-along-one-dimension" in {note.code for note in done.repairs}
    counts = (count,) * 3 if count else (3, 1, 5)
    calls = [
        (torch.randn(batches, 2, n, 4), torch.tensor([at])) for n, at in zip(counts, (5, 0, 1), strict=True)
    ]
    _same(before, done.exported, *calls)


def test_writes_by_other_index_tensors():
    """Pairs of places, dimensions of which a part is written, and two dimensions at computed places are no rows of one."""

    class Writes(nn.Module):
        def forward(self, cache, row, places):
            two = torch.arange(2)
            return (
                cache.index_put((two, places), row),
                cache.index_put((two[1:, None], torch.arange(3)[None]), row[:1, None]),
                cache.index_put((places[:, None], places[None]), row[:, None]),
            )

    before = _program(Writes(), torch.randn(2, 8, 4), torch.randn(2, 4), torch.tensor([1, 0]))
    assert repair(before, (writes_along_one_dimension,)).exported is before


def _halves(x):
    made = torch.empty_like(x)
    made[..., :6] = x[..., 2:] * 2
    made[..., 6:] = x[..., :2]
    return made


def _pairs(x):
    made = x.new_empty(x.shape)
    made[..., ::2] = x[..., :4].sin()
    made[..., 1::2] = x[..., 4:]
    return made


def _in_the_middle(x):
    made = x * 1
    made[..., 3:5] = x[..., :2]
    return made


def _over_each_other(x):
    made = torch.zeros_like(x)
    made[..., 1:7] = x[..., :6]
    made[..., 2:4] = x[..., 6:]
    made[..., -2:-1] = x[..., :1]
    return made


@pytest.mark.parametrize("assign", [_halves, _pairs, _in_the_middle, _over_each_other])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_assignments(assign, turned, dynamic):
    """Tensors put together slice by slice are concatenations, in the memory order that views of them rely on."""

    class Assigns(nn.Module):
        def forward(self, x):
            return assign(x.transpose(1, 2)).transpose(1, 2).flatten(2) if turned else assign(x)

    shapes = ({1: Dim("rows", min=2, max=9)},) if dynamic else None
    before = _program(Assigns(), torch.randn(1, 5, 3, 8), dynamic=shapes)
    done = repair(before, (copies_as_sources, assignments_as_concatenation))
    after = done.exported
    assert "assignments-concatenated" in {note.code for note in done.repairs}
    assert aten.slice_scatter.default not in {n.target for n in after.graph.nodes}
    _same(before, after, *((torch.randn(1, rows, 3, 8),) for rows in ((2, 5, 9) if dynamic else (5,))))


def test_assignments_that_are_left():
    """Integers, a part that was never written, and every second place alone."""

    class Assigns(nn.Module):
        def forward(self, x):
            numbers, open_end, second = x.long(), torch.empty_like(x), x * 2
            numbers[..., :2] = 1
            open_end[..., :2] = x[..., 1:3]
            second[..., ::2] = x[..., :4]
            return numbers, open_end[..., :2], second

    before = repair(_program(Assigns(), torch.randn(2, 8)), (copies_as_sources,)).exported
    assert assignments_as_concatenation(before) == (before, ())


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("expanded", [False, True])
def test_scattered_rows(dynamic, expanded):
    """Rows that a mask puts are those of two tensors by their places, whatever the mask has; spare ones are left."""

    class Scatters(nn.Module):
        def forward(self, words, chosen, images):
            mask = chosen.unsqueeze(-1)
            return words.masked_scatter(mask.expand_as(words) if expanded else mask, images)

    length = Dim("length", min=2, max=16)
    given = torch.randn(2, 6, 4), torch.rand(2, 6) > 0.5, torch.randn(3, 5, 4)
    before = _program(Scatters(), *given, dynamic=({1: length}, {1: length}, None) if dynamic else None)
    after, (note,) = scattered_rows_looked_up(before)
    assert note.code == "scattered-rows-looked-up"
    assert aten.masked_scatter.default not in {n.target for n in after.graph.nodes}
    masks = [torch.rand(2, 6) > 0.5, torch.zeros(2, 6).bool(), torch.ones(2, 6).bool()]
    if dynamic:
        masks += [torch.rand(2, 2) > 0.5, torch.tensor([[True] * 7 + [False] * 9] * 2)]
    _same(before, after, *((torch.randn(*mask.shape, 4), mask, torch.randn(3, 5, 4)) for mask in masks))


def test_scattered_elements():
    """A mask that tells elements of a row apart, integers, and images of other columns are left."""

    class Scatters(nn.Module):
        def forward(self, words, chosen, images):
            return (
                words.masked_scatter(chosen, images),
                words.long().masked_scatter(chosen[..., :1], images.long()),
                words.masked_scatter(chosen[..., :1], images.reshape(-1, 2)),
            )

    before = _program(Scatters(), torch.randn(2, 6, 4), torch.rand(2, 6, 4) > 0.5, torch.randn(12, 4))
    assert scattered_rows_looked_up(before) == (before, ())


class _Rows(nn.Module):
    """Writes rows [1, 2, S, 4] into a cache [1, 2, 8, 4] at `positions` of a start, and reads it all."""

    def __init__(self, positions):
        super().__init__()
        self.register_buffer("cache", torch.randn(1, 2, 8, 4))
        self._positions = positions

    def forward(self, rows, start):
        self.cache.index_copy_(2, self._positions(rows.shape[2], start), rows)
        return self.cache * 2


def _following(count, start):
    return torch.arange(count) + start


def _following_a_scalar(count, start):
    return start[0] + torch.arange(count)


@pytest.mark.parametrize("positions", [_following, _following_a_scalar])
@pytest.mark.parametrize("rows", [1, 3, None])
def test_cache_writes_in_place(positions, rows):
    """Rows that follow each other, also any number of them, are one write into the state, which has another form."""
    dynamic = None if rows else ({2: Dim("rows", min=1, max=8)}, None)
    count = rows or 2
    before = _program(_Rows(positions), torch.randn(1, 2, count, 4), torch.tensor([3]), dynamic=dynamic)
    done = repair(before, (fold_constants, cache_writes_in_place))
    assert "cache-writes-in-place" in {note.code for note in done.repairs}
    targets = [n.target for n in done.exported.graph.nodes]
    assert targets.count(torch.ops.vkfuse.update_cache.default) == 1
    counts = [rows] * 3 if rows else [3, 1, 5]
    calls = [(torch.randn(1, 2, n, 4), torch.tensor([at])) for n, at in zip(counts, (5, 0, 1), strict=True)]
    _same(before, done.exported, *calls)


def _given(_count, positions):
    return positions


def _every_second(count, start):
    return torch.arange(0, 2 * count, 2) + start


@pytest.mark.parametrize("positions", [_given, _every_second])
def test_cache_writes_at_positions_that_may_not_follow_each_other(positions):
    """Nobody knows whether given positions are consecutive; others are known not to be."""
    before = _program(_Rows(positions), torch.randn(1, 2, 3, 4), torch.arange(3))
    assert "cache-writes-in-place" not in {
        n.code for n in repair(before, (fold_constants, cache_writes_in_place)).repairs
    }


def test_a_cache_that_is_read_before_it_is_written():
    """What reads the old value would find the new one."""

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("cache", torch.randn(1, 2, 8, 4))

        def forward(self, row, position):
            before = self.cache.sum()
            self.cache.index_copy_(2, position, row)
            return self.cache * 2 + before

    before = _program(Reads(), torch.randn(1, 2, 1, 4), torch.tensor([3]))
    assert cache_writes_in_place(before) == (before, ())


@pytest.mark.parametrize(
    ("rows", "columns", "fires"), [(2, 512, True), (2, 192, False), (64, 512, False), (2, 513, False)]
)
def test_long_products(rows, columns, fires):
    """Few rows over many columns are a batch of products, summed; others stay."""

    class Product(nn.Module):
        def forward(self, x, y):
            return torch.matmul(x, y)

    inputs = torch.randn(2, 3, rows, columns), torch.randn(2, 3, columns, 5)
    before = _program(Product(), *inputs)
    after, notes = long_products_in_parts(before)
    assert bool(notes) is fires
    torch.testing.assert_close(after.module()(*inputs), before.module()(*inputs), rtol=1e-4, atol=1e-4)


def test_permutations_in_one():
    """Two permutations are one, or none where they undo each other."""

    class Twice(nn.Module):
        def forward(self, x):
            return x.transpose(1, 2).permute(0, 2, 1, 3) + 1, x.permute(0, 2, 1, 3).transpose(2, 3) * 2

    before = _program(Twice(), torch.randn(2, 3, 4, 5))
    after, (note,) = permutations_in_one(before)
    assert len(note.nodes) == 2
    moves = [n for n in after.graph.nodes if n.target in {aten.permute.default, aten.transpose.int}]
    assert [n.target for n in moves] == [aten.permute.default]
    _same(before, after, (torch.randn(2, 3, 4, 5),))


class _Masked(nn.Module):
    """Scores [2, 4, 4] and a mask, bool [2, 4], through `fill` to a softmax."""

    def __init__(self, fill):
        super().__init__()
        self.fill = fill

    def forward(self, scores, allowed):
        return torch.softmax(self.fill(scores, allowed), -1)


def _where(scores, allowed):
    return scores + torch.where(allowed[:, None], 0.0, torch.finfo(torch.float32).min)


def _masked_fill(scores, allowed):
    return scores.masked_fill(~allowed[:, None], torch.finfo(torch.float32).min)


def _product(scores, allowed):
    return scores + (1.0 - allowed[:, None].to(scores.dtype)) * torch.finfo(torch.float32).min


def _stored(scores, allowed):
    """A causal mask of constants, and one of the input."""
    causal = torch.full((4, 4), torch.finfo(torch.float32).min).triu(1)
    return scores + causal[None] + torch.where(allowed[:, None], 0.0, torch.finfo(torch.float32).min)


@pytest.mark.parametrize("fill", [_where, _masked_fill, _product, _stored])
def test_mask_fills(fill):
    """No softmax changes by a bit, and no number below the runtime's floor is left to it."""
    before, _ = fold_constants(_program(_Masked(fill), torch.randn(2, 4, 4), torch.ones(2, 4).bool()))
    after, (note,) = raise_mask_fills(before)
    assert note.code == "mask-fills-raised"
    literals = [a for n in after.graph.nodes for a in n.args if isinstance(a, float)]
    stored = [v for v in after.state_dict.values() if v.dtype == torch.float32]
    assert LOWEST not in literals
    assert not any(bool((v == LOWEST).any()) for v in stored)
    assert FLOOR in literals or any(bool((v == FLOOR).any()) for v in stored)
    scores = torch.randn(2, 4, 4) * 50
    masks = [torch.tensor(m).bool() for m in ([[1] * 4] * 2, [[0] * 4] * 2, [[0, 1, 1, 0], [1, 0, 0, 0]])]
    _same(before, after, *((scores, mask) for mask in masks))


class _Spread(nn.Module):
    """x [1, 64, 32] and a constant of 64 rows, all of them row 1 of a table, or not quite."""

    def __init__(self, read, rows=(1,) * 64):
        super().__init__()
        self.table = nn.Parameter(torch.randn(3, 32), requires_grad=False)
        self.register_buffer("rows", torch.tensor(rows)[None])
        self._read = read

    def forward(self, x):
        return self._read(x, self.table[self.rows])


@pytest.mark.parametrize(
    ("read", "rows"),
    [
        (lambda x, rows: x + rows, 1),
        (lambda x, rows: (rows - x) * rows, 1),
        (lambda x, rows: x + rows + rows.sum(1), 64),
        (lambda x, rows: x[:, :1] + rows, 64),
        (torch.matmul, 64),
    ],
)
def test_equal_rows_are_kept_once(read, rows):
    """Where all that read a folded constant spread one row of it, and nowhere else; the same bits come out."""
    x = torch.randn(1, 32, 64) if read is torch.matmul else torch.randn(1, 64, 32)
    before = _program(_Spread(read), x)
    after, _ = fold_constants(before)
    assert _folded(after) == (1, rows, 32)
    _same(before, after, (x,))


def _folded(exported):
    """The shape of the largest constant that is left."""
    floats = [value for value in constants_of(exported).values() if value.is_floating_point()]
    return tuple(max(floats, key=torch.numel).shape)


def test_rows_that_are_not_quite_equal_are_all_kept():
    """One other row is enough, also one that has another zero; so is a dimension of any length."""
    x = torch.randn(1, 64, 32)
    module = _Spread(lambda x, rows: x * rows, (*(1,) * 63, 2))
    module.table.data[1:] = module.table[1]
    module.table.data[1, 5], module.table.data[2, 5] = 0.0, -0.0
    after, _ = fold_constants(_program(module, x))
    assert _folded(after) == (1, 64, 32)


def test_mask_fills_seen_elsewhere():
    """A mask that is an output as well keeps its numbers."""

    class Shown(nn.Module):
        def forward(self, scores, allowed):
            mask = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)
            return torch.softmax(scores + mask, -1), mask

    before, _ = fold_constants(_program(Shown(), torch.randn(4, 4), torch.ones(4).bool()))
    assert raise_mask_fills(before) == (before, ())


class _ManyDimensions(nn.Module):
    """Operators of six dimensions: elementwise, of one dimension, permutations, and a sum of products."""

    def forward(self, x):
        a = x.view(1, 2, 4, 2, 4, 8)
        return (
            a.permute(0, 3, 1, 4, 2, 5).reshape(2, 8, 32),
            torch.einsum("abcdef,abgdef->acgd", a, a * 2),
            torch.stack([a, a * a], 2).sum(2).reshape(8, 64),
            torch.cat([a, torch.zeros_like(a)], 1)[:, :, 1:, 0].reshape(3, -1),
            (a.unsqueeze(2) * a[:, :, None, :1]).sum((3,), True).reshape(2, -1),
            a.cumsum(2).transpose(1, 4).reshape(1, 8, -1),
            torch.where(a > 0, a, a[:, :1].expand(1, 2, 4, 2, 4, 8) * 3).amax(-1, True).reshape(2, -1),
            ((torch.where(a > 0, a, 0.0).tril() @ a.mT).masked_fill(a[..., :1] < 0, x[0, 0, 0])).reshape(
                -1, 4
            ),
        )


def test_operators_of_many_dimensions():
    """What says the same with four dimensions or fewer has four, and every value is where it was."""
    before = _program(_ManyDimensions(), torch.randn(1, 8, 64))
    done = repair(before, (cumulative_sums_in_steps, operators_in_four_dimensions))
    assert {n.code for n in done.repairs} == {"cumulative-sums-in-steps", "operators-in-four-dimensions"}
    values = (n.meta["val"] for n in done.exported.graph.nodes if isinstance(n.meta.get("val"), torch.Tensor))
    assert max(value.ndim for value in values) == 4
    _same(before, done.exported, (torch.randint(-9, 9, (1, 8, 64)).float(),))


class _ManyDynamicDimensions(nn.Module):
    """Operators of five dimensions and more on [batch, rows, 24], of which either or both are dynamic."""

    def forward(self, x):
        batch, rows, _ = x.shape
        a, means = x.view(batch, rows, 2, 3, 4), x.mean(-1)[:, :, None, None, None]
        return (
            (a * means).relu().amax(3).reshape(batch, rows, 8),
            a.permute(0, 3, 1, 4, 2).flatten(2),
            torch.cat([a, a * 2], 2)[:, :, :, 1:].reshape(batch, rows, 32),
            torch.einsum("brcef,brdef->brcd", a, a),
            a.unsqueeze(2).expand(batch, rows, 3, 2, 3, 4).sum(2).reshape(batch, rows, 24),
            torch.zeros_like(a).reshape(batch, rows, 24) + x,
        )


@pytest.mark.parametrize("dims", [(0,), (1,), (0, 1)])
def test_dynamic_operators_of_many_dimensions(dims):
    """Of dynamic sizes too, one or several; the program takes what it took."""
    bounds = {dim: Dim(f"size{dim}", max=9) for dim in dims}
    before = _program(_ManyDynamicDimensions(), torch.randn(2, 7, 24), dynamic=(bounds,))
    after, _ = operators_in_four_dimensions(before)
    nodes = [n for n in after.graph.nodes if isinstance(n.meta.get("val"), torch.Tensor)]
    assert max(n.meta["val"].ndim for n in nodes) == 4
    assert str(after.range_constraints) == str(before.range_constraints)
    sizes = [tuple(size if d in dims else of for d, of in enumerate((2, 7))) for size in (1, 3, 9)]
    _same(before, after, *((torch.randint(-9, 9, (*of, 24)).float(),) for of in sizes))


class _Absorbed(nn.Module):
    """DeepSeek's attention over compressed rows: sums whose tensors have four dimensions and five or six names in all."""

    def forward(self, q, w, rows):
        absorbed = torch.einsum("bshd,hdc->bshc", q, w)
        return torch.einsum("bsht,btc->bshc", torch.einsum("bshc, btc -> bsht", absorbed, rows), rows)


@pytest.mark.parametrize("dynamic", [False, True])
def test_sums_of_many_names(dynamic):
    """They are products of batches of matrices, of no more than four dimensions, in any order, of any length too."""
    n = Dim("n", min=2, max=9)
    given = tuple(torch.randint(-3, 4, size).float() for size in ((2, 5, 4, 8), (4, 8, 16), (2, 7, 16)))
    before = _program(_Absorbed(), *given, dynamic=({1: n}, None, None) if dynamic else None)
    after, (note,) = sums_in_four_dimensions(before)
    targets = {node.target for node in after.graph.nodes}
    assert (note.code, len(note.nodes)) == ("operators-in-four-dimensions", 3)
    assert aten.einsum.default not in targets
    values = (n.meta["val"] for n in after.graph.nodes if isinstance(n.meta.get("val"), torch.Tensor))
    assert max(value.ndim for value in values) == 4
    _same(before, after, given, *([(given[0][:, :3], *given[1:])] if dynamic else []))


class _Solved(nn.Module):
    """Forward substitution as transformers' gated delta rule has it: each row is written in its turn."""

    def forward(self, x):
        x = -x.tril(-1)
        for i in range(1, x.shape[-1]):
            row, above = x[..., i, :i].clone(), x[..., :i, :i].clone()
            x[..., i, :i] = row + (row.unsqueeze(-1) * above).sum(-2)
        return x


def test_rows_written_in_turn():
    """Each is joined with what is above and below it as it is then, three parts at most: others read it in between."""
    before = _program(_Solved(), torch.randn(1, 2, 6, 6))
    done = repair(before, (rows_as_slices, assignments_as_concatenation))
    parts = [
        node.args[0] for node in done.exported.graph.find_nodes(op="call_function", target=aten.cat.default)
    ]
    assert {n.code for n in done.repairs} == {"assignments-concatenated"}
    assert not {aten.select_scatter.default, aten.slice_scatter.default} & {
        n.target for n in done.exported.graph.nodes
    }
    assert max(map(len, parts)) == 3
    _same(before, done.exported, (torch.randint(-2, 3, (1, 2, 6, 6)).float(),))


def test_logarithms_of_one_more():
    """Within the rounding of floats, relative, near zero and far from it; at its ends as torch's."""

    class Logarithms(nn.Module):
        def forward(self, x):
            return x.log1p(), nn.functional.logsigmoid(x)

    small = torch.logspace(-30, 30, 2001)
    inputs = (
        torch.cat([small, -small[small < 1], torch.linspace(-1, 2, 999), torch.tensor([torch.inf, 0.0])]),
    )
    before = _program(Logarithms(), *inputs)
    after, (note,) = logarithms_of_one_more(before)
    assert (note.code, len(note.nodes)) == ("functions-written-out", 2)
    for got, wanted in zip(*(program.module()(*inputs) for program in (after, before)), strict=True):
        torch.testing.assert_close(got, wanted, rtol=5e-7, atol=0, equal_nan=True)


def test_sums_that_hold_infinities():
    """Sums up to each place are as torch's behind an infinity too; those of whole numbers stay."""

    class Sums(nn.Module):
        def forward(self, x):
            return x.cumsum(1), x.long().cumsum(-1)

    x = torch.tensor([[1.0, 2.0, -torch.inf, 4.0, 5.0], [1.0, 2.0, 3.0, torch.inf, -torch.inf]])
    before = _program(Sums(), torch.ones(2, 5))
    after, (note,) = cumulative_sums_in_steps(before)
    assert len(note.nodes) == 1
    _same(before, after, (torch.ones(2, 5).cumsum(1),))
    torch.testing.assert_close(after.module()(x)[0], x.cumsum(1), equal_nan=True)


class _Adapters(nn.Module):
    """Pairs of matrices of whole numbers, of which an input chooses one for linears and turned products."""

    def __init__(self):
        super().__init__()
        self.down, self.up = (nn.Parameter(torch.randn(shape).round()) for shape in ((3, 4, 8), (3, 8, 4)))

    def forward(self, x, which, bias):
        down, up = (table.index_select(0, which)[0] for table in (self.down, self.up))
        low = nn.functional.linear(x, down, bias)
        return low @ up.t(), x[0] @ down.transpose(-1, -2), nn.functional.linear(x, self.down[0]) @ down


def test_matrices_that_an_input_chooses():
    """Linears and turned products by computed matrices are batches of one; the others stay."""
    before = _program(_Adapters(), torch.randn(2, 5, 8), torch.tensor([1]), torch.randn(4))
    after, (note,) = computed_matrices_as_batches(before)
    assert (note.code, len(note.nodes)) == ("computed-matrices-as-batches", 3)
    _same(before, after, (torch.randn(2, 5, 8).round(), torch.tensor([2]), torch.randn(4).round()))


def _unbound(stacked):
    return stacked.unbind(2)


def _permuted(stacked):
    parts = stacked.permute(2, 0, 3, 1, 4)
    return parts[0], parts[1], parts[-1]


def _selected(stacked):
    return stacked[:, :, 2], stacked[:, :, 0]


def _behind_heads(stacked):
    return stacked[..., 1, :], *stacked.unbind(3)


_STACKS = [(_unbound, (3, 2, 5)), (_permuted, (3, 2, 5)), (_selected, (3, 2, 5)), (_behind_heads, (2, 3, 5))]


@pytest.mark.parametrize(("take", "sizes"), _STACKS)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_stacks(take, sizes, dynamic):
    """Queries, keys and values come out of their linear without a fifth dimension."""

    class Stacked(nn.Module):
        def forward(self, x):
            return tuple(t * 1 for t in take(x.view(x.shape[0], x.shape[1], *sizes)))

    shapes = ({1: Dim("rows", min=2, max=16)},) if dynamic else None
    before = _program(Stacked(), torch.randn(2, 7, 30), dynamic=shapes)
    after, (note,) = stacks_as_slices(before)
    assert note.code == "stacks-as-slices"
    assert (
        max(n.meta["val"].ndim for n in after.graph.nodes if isinstance(n.meta.get("val"), torch.Tensor)) == 4
    )
    _same(before, after, *((torch.randn(2, rows, 30),) for rows in ((7, 2, 16) if dynamic else (7,))))


@pytest.mark.parametrize(
    ("dynamic", "calls"),
    [(None, [(2, 7)]), (({0: Dim("batch", max=8), 1: Dim("rows", max=9)},), [(2, 7), (5, 3)])],
)
def test_packed_attention(dynamic, calls):
    """The permutation of `nn.MultiheadAttention` has four dimensions; every value is where it was."""
    attention = nn.MultiheadAttention(32, 4, batch_first=True)

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = attention

        def forward(self, x):
            return self.attention(x, x, x)

    before = _program(Attention(), torch.randn(2, 7, 32), dynamic=dynamic)
    after, (note,) = operators_in_four_dimensions(before)
    assert note.code == "operators-in-four-dimensions"
    assert (
        max(n.meta["val"].ndim for n in after.graph.nodes if isinstance(n.meta.get("val"), torch.Tensor)) == 4
    )
    _same(before, after, *((torch.randn(batch, rows, 32),) for batch, rows in calls))


def test_integer_scalars():
    """Integers in float arithmetic are floats; those that float32 cannot hold, and integer arithmetic, stay."""

    class Scalars(nn.Module):
        def forward(self, x, tokens):
            added = torch.add(x, 1, alpha=2), aten.sub.Scalar(x, 1, 3)
            return x * 2 - 3, x + ((1 << 24) + 1), tokens * 2, *added, x / True

    inputs = (torch.randn(5), torch.arange(5))
    before = _program(Scalars(), *inputs)
    after, (note,) = scalars_as_tensors(before)
    assert len(note.nodes) == 4
    kept = [a for n in after.graph.nodes for a in n.args if type(a) is int]
    assert kept == [(1 << 24) + 1, 2]
    _same(before, after, inputs)


def test_group_norms():
    """A group norm of sequences is one of images of width one."""

    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.GroupNorm(2, 8)

        def forward(self, x):
            return self.norm(x)

    before = _program(Norm(), torch.randn(2, 8, 5))
    after, (note,) = group_norms_in_four_dimensions(before)
    assert note.code == "group-norm-in-four-dimensions"
    _same(before, after, (torch.randn(2, 8, 5),))


def test_reductions():
    """Inner reductions keep their dimensions; rows, whole tensors, integers and three dimensions stay as they are."""

    class Reduced(nn.Module):
        def forward(self, x, tokens):
            changed = x.sum(1), x.mean((-1, 1)), x.amax(0)
            return *changed, x.sum(-1), x.sum(1, keepdim=True), x.sum(), x.sum((0, 1, 2)), tokens.sum(0)

    inputs = (torch.randn(2, 5, 7), torch.arange(6).reshape(2, 3))
    before = _program(Reduced(), *inputs)
    after, (note,) = reductions_keep_dimensions(before)
    assert (note.code, len(note.nodes)) == ("reductions-keep-dimensions", 3)
    _same(before, after, inputs)


def test_valid_padding():
    """Padding that a program names is two numbers for an image: torch decomposes it to one, and a runtime reads two."""
    named, plain = nn.Conv2d(3, 8, 4, stride=4, padding="valid"), nn.Conv2d(3, 8, 4, stride=4)
    inputs = (torch.randn(1, 3, 8, 8),)
    before = _program(named, *inputs)
    after, (note,) = convolutions_as_shaders_take_them(before)
    assert note.code == "convolution-written-out"
    (left,) = [n.args[3:] for n in after.run_decompositions().graph.nodes if "convolution" in str(n.target)]
    assert left == ([4, 4], [0, 0], [1, 1], False, [0, 0], 1)
    _same(before, after, inputs)
    before = _program(plain, *inputs)
    assert convolutions_as_shaders_take_them(before) == (before, ())


def test_ands_with_true():
    """One that is true at all times is left out, on either side; a mask of its own size stays."""

    class Masked(nn.Module):
        def forward(self, x):
            true, many = x.new_ones((), dtype=torch.bool), x.new_ones((2, 1), dtype=torch.bool)
            return true & (x > 0), torch.logical_and(x < 1, true), many & (x > 2)

    inputs = (torch.randn(3),)
    before = _program(Masked(), *inputs)
    after, (note,) = ands_with_true(before)
    assert (note.code, len(note.nodes)) == ("ands-with-true", 2)
    _same(before, after, inputs)


def test_softplus():
    """Within the rounding of floats, relative, from where it is 0 to where it is x; another steepness or line stays."""

    class Softplus(nn.Module):
        def forward(self, x):
            f = nn.functional.softplus
            return f(x), f(x, beta=2), f(x, threshold=1)

    inputs = (torch.linspace(-80, 80, 4001),)
    before = _program(Softplus(), *inputs)
    after, (note,) = write_out_softplus(before)
    assert (note.code, len(note.nodes)) == ("softplus-written-out", 1)
    got, wanted = (program.module()(*inputs)[0].double() for program in (after, before))
    assert ((got - wanted).abs() <= 4e-7 * wanted).all()


def test_extremes():
    """Greatest and least values of floats, and their places, each by an operator of its own; of integers they stay."""

    class Extremes(nn.Module):
        def forward(self, x, tokens):
            most, place = x.max(0)
            return x.max(-1, keepdim=True).values, x.min(1).values, most, place, tokens.max(0).values

    inputs = (torch.randn(2, 5, 7), torch.arange(6).reshape(2, 3))
    before = _program(Extremes(), *inputs)
    after, (note,) = extremes_alone(before)
    assert (note.code, len(note.nodes)) == ("extremes-alone", 4)
    _same(before, after, inputs)


def test_expansions():
    """A bias that is expanded over a dynamic batch is broadcast; one of two, or what something else reads, stays."""

    class Biased(nn.Module):
        def forward(self, scores, bias):
            added = scores + bias.expand(scores.shape[0], -1, -1).contiguous()
            one, other, read = ((bias * n).expand(scores.shape[0], -1, -1) for n in (2, 3, 4))
            return added, one * other, read.flip(0)

    shapes = ({0: Dim("batch", min=2, max=8)}, None)
    before = _program(Biased(), torch.randn(3, 4, 5), torch.randn(1, 4, 5), dynamic=shapes)
    after, (note,) = expansions_as_broadcasts(before)
    assert (note.code, len(note.nodes)) == ("expansions-as-broadcasts", 2)
    assert sum(n.target == aten.expand.default for n in after.graph.nodes) == 2
    _same(before, after, *((torch.randn(batch, 4, 5), torch.randn(1, 4, 5)) for batch in (2, 8)))


def test_lower_bounds():
    """What is known of a mask's lowest value; additions round as the program's do, unknown terms are unbounded."""

    class Bounds(nn.Module):
        def forward(self, x, allowed):
            low = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)
            bias = torch.tensor([[-4.0, 2.0]]).expand(3, 2)
            return (
                low + bias,
                low + low,
                low + x,
                bias.masked_fill(allowed, -torch.inf),
                bias.masked_fill(allowed, -9.0),
            )

    exported = _program(Bounds(), torch.randn(3, 2), torch.ones(3, 2).bool())
    (output,) = exported.graph.find_nodes(op="output")
    bounds = [lower_bound(node, Constants(exported)) for node in output.args[0]]
    assert bounds == [LOWEST, -torch.inf, -torch.inf, -torch.inf, -9.0]


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("kind", ["plain", "causal", "bool", "float"])
def test_attention_without_heads(rank, kind):
    """Attention of two or three dimensions is written out as well."""

    class Attention(nn.Module):
        def forward(self, query, key, allowed):
            mask = {"bool": allowed, "float": torch.where(allowed, 0.0, -1e9)}.get(kind)
            return nn.functional.scaled_dot_product_attention(
                query, key, key * 2, attn_mask=mask, is_causal=kind == "causal"
            )

    shape = (2, 4, 8)[3 - rank :]
    inputs = (torch.randn(shape), torch.randn(shape), torch.ones(4, 4).tril().bool())
    before = _program(Attention(), *inputs)
    repaired = repair(before, AFTER_TABLES)
    assert {"attention-in-four-dimensions", "attention-written-out"} <= {r.code for r in repaired.repairs}
    assert not any(
        n.target == aten.scaled_dot_product_attention.default for n in repaired.exported.graph.nodes
    )
    torch.testing.assert_close(
        repaired.exported.module()(*inputs), before.module()(*inputs), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("float_mask", [False, True])
def test_attention_with_empty_rows(float_mask):
    """Attention under a mask that empties rows is zero there, whichever way the mask was made."""

    class Attention(nn.Module):
        def forward(self, query, allowed):
            mask = allowed[:, None, None]
            mask = torch.where(mask, 0.0, -torch.inf) if float_mask else mask
            return nn.functional.scaled_dot_product_attention(
                query, query, query, attn_mask=mask.expand(2, 1, 4, 4)
            )

    before = _program(Attention(), torch.randn(2, 2, 4, 8), torch.ones(2, 4).bool())
    after = repair(before, AFTER_TABLES).exported
    allowed = torch.tensor([[0, 0, 0, 0], [1, 0, 1, 1]]).bool()
    query = torch.randn(2, 2, 4, 8)
    expected, got = before.module()(query, allowed), after.module()(query, allowed)
    assert not expected[0].any()
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


_LENGTH = Dim("length", min=4, max=32)
_ALONG_TWO = ({2: _LENGTH},)


class _Lambda(nn.Module):
    """`use(parts, *inputs)`."""

    def __init__(self, use, **parts):
        super().__init__()
        self._use, self.parts = use, nn.ModuleDict(parts)

    def forward(self, x):
        return self._use(self.parts, x)


def _conv1d(*sizes, **options):
    return _Lambda(lambda p, x: p["c"](x), c=nn.Conv1d(8, *sizes, **options))


def _conv2d(*sizes, **options):
    return _Lambda(lambda p, x: p["c"](x), c=nn.Conv2d(8, *sizes, **options))


def _as_trained(parts, x):
    """As quantization-aware training leaves a convolution: its weight by channels, what goes in as a whole."""
    weight, scales, points = parts["c"].weight, torch.full((4,), 0.03), torch.zeros(4, dtype=torch.int32)
    rounded = torch.fake_quantize_per_channel_affine(weight, scales, points, 0, -8, 7)
    return nn.functional.conv1d(torch.fake_quantize_per_tensor_affine(x, 0.1, 3, -8, 7), rounded)


def _transposed1d(*sizes, **options):
    return _Lambda(lambda p, x: p["c"](x), c=nn.ConvTranspose1d(8, *sizes, **options))


def _transposed():
    return _Lambda(lambda p, x: p["c"](x), c=nn.ConvTranspose2d(8, 8, 3, stride=2, groups=2))


def _normed():
    norm = nn.BatchNorm2d(8)
    nn.init.normal_(norm.running_mean)
    return _Lambda(lambda p, x: p["n"](x), n=norm)


def _layer_norm(columns):
    return _Lambda(lambda p, x: p["n"](x), n=nn.LayerNorm(columns))


def _turned_by_twos(_, x):
    made = x.new_empty(x.shape)
    made[:, :, ::2], made[:, :, 1::2] = x[:, :, ::2], -x[:, :, 1::2]
    return made


_SEQUENCE, _IMAGE, _VOLUME = (1, 8, 12), (1, 8, 12, 12), (1, 2, 6, 7, 8)
_ACTIVATIONS = (nn.ELU(0.5), nn.SELU(), nn.CELU(0.7), nn.Mish())
# Module, sizes of its input, dynamic dimensions, the codes of the repairs that have something to do.
_REPAIRED = {
    "padding at a length's end": (_conv1d(4, 3, padding=1), _SEQUENCE, _ALONG_TWO, "convolution-written-out"),
    "padding of a static length": (_conv1d(4, 3, padding=1), _SEQUENCE, None, ""),
    "padding of single channels": (_conv1d(8, 3, padding=1, groups=8), _SEQUENCE, _ALONG_TWO, ""),
    "same": (_conv1d(4, 4, padding="same"), _SEQUENCE, _ALONG_TWO, "convolution-written-out"),
    "stride of one": (_conv1d(4, 1, stride=2, padding=1), _SEQUENCE, None, "convolution-written-out"),
    "groups of one": (_conv1d(4, 1, groups=4), _SEQUENCE, None, "convolution-written-out"),
    "groups of pixels": (_conv2d(4, 1, groups=4), _IMAGE, None, "convolution-written-out"),
    "groups of texels": (_conv2d(8, 3, groups=2), _IMAGE, None, ""),
    "groups within a texel": (_conv2d(8, 3, groups=4), _IMAGE, None, "convolution-written-out"),
    "large depthwise": (_conv2d(8, 7, padding=3, groups=8), _IMAGE, None, "convolution-written-out"),
    "small depthwise": (_conv2d(8, 3, padding=1, groups=8), _IMAGE, _ALONG_TWO, ""),
    "small depthwise in strides": (
        _conv2d(8, 3, padding=1, stride=2, groups=8),
        _IMAGE,
        _ALONG_TWO,
        "convolution-written-out",
    ),
    "transposed groups": (_transposed(), _IMAGE, None, "convolution-written-out"),
    "batch norm": (_normed(), _IMAGE, None, "batch-norm-written-out"),
    "layer norm of three texels": (_layer_norm(9), (2, 5, 9), None, "layer-norm-in-rows"),
    "layer norm of two": (_layer_norm(8), (2, 5, 8), None, ""),
    "layer norm three deep": (_layer_norm(8), (3, 5, 8), None, "layer-norm-in-rows"),
    "concatenation of two types": (
        _Lambda(lambda _, x: torch.cat([x, (x > 0).int()], 1)),
        (4, 8),
        None,
        "concatenation-promoted",
    ),
    "layer norm four deep": (_layer_norm(9), (4, 5, 9), None, ""),
    "layer norm of a matrix": (_layer_norm(9), (5, 9), None, ""),
    "circular": (
        _conv1d(4, 3, padding=2, padding_mode="circular"),
        _SEQUENCE,
        None,
        "padding-concatenated",
    ),
    "pool": (
        _Lambda(lambda _, x: nn.functional.avg_pool1d(x, 3, 1, 1)),
        _SEQUENCE,
        _ALONG_TWO,
        "squeezes-as-views",
    ),
    "squeeze": (_Lambda(lambda _, x: x.squeeze(0) * 2), _SEQUENCE, _ALONG_TWO, "squeezes-as-views"),
    "squeeze of all": (
        _Lambda(lambda _, x: x[:, None].squeeze() * 2),
        _SEQUENCE,
        _ALONG_TWO,
        "squeezes-as-views",
    ),
    "squeeze of a static tensor": (_Lambda(lambda _, x: x.squeeze(0) * 2), _SEQUENCE, None, ""),
    "parts of one": (
        _Lambda(lambda _, x: torch.stack(x.unbind(1)[::-1])),
        _SEQUENCE,
        _ALONG_TWO,
        "unbinds-as-selections",
    ),
    "parts of a static tensor": (_Lambda(lambda _, x: x.unbind(1)), _SEQUENCE, None, ""),
    "recurrent layer": (
        _Lambda(lambda p, x: p["n"](x.permute(1, 2, 0)), n=nn.GRU(1, 4)),
        _SEQUENCE,
        _ALONG_TWO,
        "unbinds-as-selections splits-as-slices squeezes-as-views",
    ),
    "choice": (
        _Lambda(lambda _, x: torch.where(x[0] > 0, x, 0.5)),
        _SEQUENCE,
        _ALONG_TWO,
        "conditions-in-full-rank numbers-stored",
    ),
    "triangle": (
        _Lambda(lambda _, x: torch.tril(x.transpose(1, 2) @ x)),
        _SEQUENCE,
        _ALONG_TWO,
        "conditions-in-full-rank numbers-stored",
    ),
    "mirrored": (
        _Lambda(lambda _, x: nn.functional.pad(x, (1, 3), mode="reflect")),
        _SEQUENCE,
        _ALONG_TWO,
        "padding-concatenated",
    ),
    "edge": (
        _Lambda(lambda _, x: nn.functional.pad(x, (2, 0, 1, 3), mode="replicate")),
        _IMAGE,
        None,
        "padding-concatenated",
    ),
    "roll": (_Lambda(lambda _, x: x.roll((1, -15), (1, 2))), _IMAGE, None, "rolls-concatenated"),
    "roll of a dynamic tensor": (_Lambda(lambda _, x: x.roll(1, 2)), _SEQUENCE, _ALONG_TWO, ""),
    "pool to a pixel": (
        _Lambda(lambda _, x: nn.functional.adaptive_avg_pool2d(x, 1)),
        _IMAGE,
        None,
        "",
    ),
    "adaptive maxima": (
        _Lambda(lambda _, x: nn.functional.adaptive_max_pool2d(x, (5, 1))),
        _IMAGE,
        None,
        "pools-as-maxima",
    ),
    "mean pool of volumes": (
        _Lambda(lambda _, x: nn.functional.avg_pool3d(x, (1, 2, 3), stride=(1, 2, 1), padding=(0, 1, 1))),
        _VOLUME,
        None,
        "volumes-as-images",
    ),
    "maximum pool of volumes": (
        _Lambda(lambda _, x: nn.functional.max_pool3d(x, (1, 2, 3), padding=(0, 1, 1), ceil_mode=True)),
        _VOLUME,
        None,
        "volumes-as-images",
    ),
    "convolution of a volume": (
        _Lambda(lambda p, x: p["c"](x), c=nn.Conv3d(2, 3, (3, 1, 2), 2, (1, 0, 1), (2, 1, 1))),
        _VOLUME,
        None,
        "volumes-by-slices batch-as-one-image",
    ),
    "even depth": (
        _Lambda(lambda p, x: p["c"](x), c=nn.Conv3d(2, 3, (4, 1, 3), padding="same")),
        _VOLUME,
        None,
        "volumes-by-slices batch-as-one-image",
    ),
    "activations": (
        _Lambda(lambda _, x: sum(f(x * 9) for f in _ACTIVATIONS)),
        _SEQUENCE,
        _ALONG_TWO,
        "activations-written-out",
    ),
    "the larger of two": (
        _Lambda(
            lambda _, x: (
                torch.maximum(x, x.sin()),
                torch.max(x[:, :1], -2 * x),
                torch.max(x.int(), -x.int()),
            )
        ),
        _SEQUENCE,
        _ALONG_TWO,
        "maxima-as-minima",
    ),
    "variances": (
        _Lambda(
            lambda _, x: (
                *(x.std(-1, keepdim=True), x.var(-1), x.std(1, unbiased=False)),
                *(x.var((0, 2), correction=3), x.std((1, 2), correction=0, keepdim=True)),
            )
        ),
        (2, 8, 12),
        None,
        "variances-written-out",
    ),
    "variances of any number": (
        _Lambda(lambda _, x: (x.std(1, True, keepdim=True), x.var(2, unbiased=False, keepdim=True))),
        _SEQUENCE,
        _ALONG_TWO,
        "variances-written-out",
    ),
    "reductions of a batch of images": (
        _Lambda(lambda _, x: (x.mean(0), x.sum((0,), True), x.amax(-4))),
        (3, 8, 11, 12),
        None,
        "reductions-in-three-dimensions",
    ),
    "the last one of any number": (
        _Lambda(lambda _, x: x[:, :, [-1]]),
        _SEQUENCE,
        _ALONG_TWO,
        "indices-as-slices",
    ),
    "bounds": (
        _Lambda(
            lambda _, x: (
                torch.maximum(x, torch.full_like(x, 0.5)),
                torch.min(x, torch.tensor(0.25)),
                torch.maximum(x, -x),
            )
        ),
        _SEQUENCE,
        _ALONG_TWO,
        "bounds-as-clamps maxima-as-minima",
    ),
    "reciprocal": (
        _Lambda(lambda _, x: (1 / (x + 9), (x.mean() + 9).reciprocal())),
        _SEQUENCE,
        _ALONG_TWO,
        "reciprocals-as-quotients",
    ),
    "fake quantization": (
        _Lambda(_as_trained, c=nn.Conv1d(8, 4, 3)),
        _SEQUENCE,
        None,
        "activations-in-floats",
    ),
    "softmax of many halves": (
        _Lambda(lambda _, x: (x.half().softmax(-1).float(), x.half().log_softmax(-1).float() / 999)),
        (2, 2048),
        None,
        "half-softmax-widened",
    ),
    "softmax of halves": (_Lambda(lambda _, x: x.half().softmax(-1).float()), (2, 1024), None, ""),
    "spectrum": (
        _Lambda(
            lambda _, x: (
                torch.stft(x[0], 6, 2, 4, torch.hann_window(4), return_complex=True)[..., :-1].abs(),
                torch.view_as_real(torch.stft(x[0, 0], 6, normalized=True, return_complex=True)),
                torch.stft(x[0], 6, center=False, onesided=False, return_complex=True).abs(),
            )
        ),
        (1, 8, 24),
        None,
        "spectra-as-convolutions padding-concatenated",
    ),
    "extremes": (
        _Lambda(lambda _, x: (x.max(-1), x.min(1, keepdim=True).indices)),
        _SEQUENCE,
        _ALONG_TWO,
        "extremes-alone",
    ),
    "sort": (
        _Lambda(
            lambda _, x: (*x.sort(-1), x.argsort(1, True), torch.sort(x.round(), stable=True, dim=1).indices)
        ),
        _SEQUENCE,
        _ALONG_TWO,
        "sorts-as-topk",
    ),
    "negative indices": (
        _Lambda(lambda _, x: (x[:, -(x[0, 0] > 0).int() - 1], torch.take_along_dim(x, -(x > 0).long(), 1))),
        _SEQUENCE,
        None,
        "indices-from-the-start",
    ),
    "read off a sort": (
        _Lambda(
            lambda _, x: (
                *(*x.median(1), x.median(), x.nanmedian(), *x.nanmedian(-1, True), *x.kthvalue(3, 1)),
                *(x * 9).long().mode(1),
            )
        ),
        _SEQUENCE,
        _ALONG_TWO,
        "places-of-sorts sorts-as-topk squeezes-as-views",
    ),
    "cumulated": (
        _Lambda(
            lambda _, x: (
                *(*x.round().cummax(2), *x.cummin(1), x.cumprod(-1), x.logcumsumexp(2), x.cumprod(1)),
                *(x * 9).int().cummin(1),
            )
        ),
        _SEQUENCE,
        _ALONG_TWO,
        "cumulated-in-steps maxima-as-minima logarithms-of-ten",
    ),
    "functions of numbers": (
        _Lambda(
            lambda _, x: (
                *(x.exp2(), (x * 3).erfc(), x.hypot(x - 1), x.signbit(), x.copysign(x - 1), x.copysign(-2)),
                *(x.fmax(x - 1), x.fmin(x * x), x.round(decimals=2), (90 * x).round(decimals=-1), x.angle()),
                *(torch.addmv(x[0, 0], x[0].T, x[0, :, 0], beta=0.5, alpha=2), x.long().fmax(x.int())),
            )
        ),
        _SEQUENCE,
        _ALONG_TWO,
        "functions-written-out maxima-as-minima reciprocals-as-quotients squeezes-as-views numbers-stored",
    ),
    "truths about floats": (
        _Lambda(
            lambda _, x: (
                *(~((x > 0) & (x < 1) | (x == 0)), ((x > 0).logical_or(x.isnan())).logical_not().float()),
                *(x * (x != 0.5), x.sign(), x.isinf(), x.masked_fill(x > 0, 2), x.clamp(x - 1, x * 0)),
                torch.where(x > 0, 1.0, x),
            )
        ),
        _SEQUENCE,
        _ALONG_TWO,
        "truths-in-the-delegate numbers-stored bounds-as-clamps maxima-as-minima",
    ),
    "truths about inputs": (
        _Lambda(lambda _, x: (x.round().int() == 0).float() * (torch.ones_like(x) * (x == 0))),
        _SEQUENCE,
        _ALONG_TWO,
        "",
    ),
    "logarithms": (
        _Lambda(lambda _, x: ((x * x).log(), (x * x).log2())),
        _SEQUENCE,
        _ALONG_TWO,
        "logarithms-of-ten",
    ),
    "counted by size": (
        _Lambda(lambda _, x: (x.histc(5, -1.0, 1.5), torch.searchsorted(x.sort(-1).values, x, right=True))),
        _SEQUENCE,
        _ALONG_TWO,
        "buckets-as-counts sorts-as-topk truths-in-the-delegate",
    ),
    "joined with nothing": (
        _Lambda(lambda _, x: (torch.block_diag(x[0, :2, :3], x[0, :1]), torch.cat([x, x[:, :0]], 1))),
        _SEQUENCE,
        _ALONG_TWO,
        "concatenation-promoted",
    ),
    "permuted from behind": (
        _Lambda(lambda _, x: x.permute(0, -1, -2) * 2),
        _SEQUENCE,
        _ALONG_TWO,
        "dimensions-from-the-front",
    ),
    "known places": (
        _Lambda(
            lambda _, x: (x[:, [-2]], x[..., [1, 3, 5, 2, 2, 7]], x[:, [0, 1, 2, 5, 7], 1:], x[:, :, [3, 1]])
        ),
        _SEQUENCE,
        None,
        "indices-as-slices",
    ),
    "other spectra": (
        _Lambda(
            lambda _, x: (
                torch.stft(x[0], 6, center=False, return_complex=False).abs(),
                torch.stft(x[0], 6, 2, 4, center=False, return_complex=True, align_to_window=True).abs(),
                torch.stft(x[0], 6, window=1j * torch.ones(6), onesided=False, return_complex=True).abs(),
            )
        ),
        (1, 8, 24),
        None,
        "padding-concatenated",
    ),
    "rounded at halves": (
        _Lambda(
            lambda _, x: torch.fake_quantize_per_tensor_affine(
                (64 * x).round() * 0.0017046479717822269, 0.0034092959435644537, 3, -128, 127
            )
        ),
        _SEQUENCE,
        None,
        "activations-in-floats",
    ),
    "assigned to a tensor of any length": (
        _Lambda(_turned_by_twos),
        _SEQUENCE,
        _ALONG_TWO,
        "empties-as-zeros copies-as-sources",
    ),
    "an input copied over": (
        _Lambda(lambda _, x: (x * 3).copy_(x) + 1),
        _SEQUENCE,
        None,
        "copies-as-sources",
    ),
    "positions of rounded numbers": (
        _Lambda(lambda _, x: x[:, (4 * x[0, 0]).clamp(-8, 7).long()]),
        _SEQUENCE,
        None,
        "indices-from-the-start",
    ),
    "positions written from the end": (
        _Lambda(lambda _, x: x.index_put((x[0, 0, :1].clamp(-1, 0.5).floor().long(),), 2 * x[:, :1])),
        _SEQUENCE,
        None,
        "cache-writes-as-choices indices-from-the-start",
    ),
    "queries of one head, keys of several": (
        _Lambda(lambda _, x: nn.functional.scaled_dot_product_attention(x[:, :1], x, x).sum(1)),
        (2, 3, 8, 4),
        None,
        "reductions-in-three-dimensions",
    ),
    "long product of integers": (
        _Lambda(lambda _, x: (9 * x).int() @ (9 * x).int().mT),
        (1, 2, 8, 256),
        None,
        "",
    ),
    "sort of what is no number": (
        _Lambda(lambda _, x: [x.round().sqrt().sort(stable=True, descending=d)[1] for d in (True, False)]),
        _SEQUENCE,
        None,
        "sorts-as-topk",
    ),
    "sort of truths": (_Lambda(lambda _, x: (x > 0).sort(-1)), _SEQUENCE, None, ""),
    "numbers of another type": (
        _Lambda(lambda _, x: x.maximum(torch.full_like(x, 0.7, dtype=torch.int32))),
        _SEQUENCE,
        None,
        "bounds-as-clamps",
    ),
    "norm of halves and of doubles": (
        _Lambda(
            lambda _, x: [
                nn.functional.rms_norm((x / 100).to(t), (12,)).float() for t in (torch.half, torch.double)
            ]
        ),
        _SEQUENCE,
        None,
        "rms-norm-written-out",
    ),
    "shifts": (
        _Lambda(
            lambda _, x: [
                (n := (4 * x).int()) << 2,
                n >> 1,
                n << torch.ones_like(n),
                1 << n.abs().clamp(max=9),
            ]
        ),
        _SEQUENCE,
        _ALONG_TWO,
        "shifts-of-tensors",
    ),
    "greatest as indices": (
        _Lambda(lambda _, x: x[:, (4 * x[0, 0]).clamp(-8, 7).int().topk(3).values]),
        _SEQUENCE,
        None,
        "indices-from-the-start",
    ),
    "permuted ones": (
        _Lambda(lambda _, x: x[:1, :1, :1].view(1, 1, 1, 1, 1).transpose(0, 1).reshape(1, 1)),
        _SEQUENCE,
        None,
        "operators-in-four-dimensions",
    ),
    "windows": (
        _Lambda(lambda _, x: x.reshape(1, 8, 3, 4, 3, 4).permute(0, 2, 4, 1, 3, 5).reshape(9, 128)),
        _IMAGE,
        None,
        "operators-in-four-dimensions",
    ),
    "windows of channels that come last": (
        _Lambda(lambda _, x: x.reshape(1, 2, 4, 3, 4, 12).permute(0, 1, 3, 2, 4, 5).reshape(6, 16, 12)),
        _IMAGE,
        None,
        "operators-in-four-dimensions",
    ),
    "shuffled channels": (
        _Lambda(lambda _, x: x.view(1, 2, 4, *x.shape[2:]).transpose(1, 2).reshape(x.shape)),
        _IMAGE,
        _ALONG_TWO,
        "operators-in-four-dimensions",
    ),
    "batch": (_conv2d(8, 3, padding=2, stride=2, dilation=2), (3, 8, 11, 12), None, "batch-as-one-image"),
    "batch of single channels": (
        _conv2d(8, 3, padding="same", groups=8),
        (3, 8, 11, 12),
        None,
        "batch-as-one-image",
    ),
    "image without a batch": (_conv2d(4, 3, padding=1), (8, 11, 12), None, ""),
    "batch of points": (_conv2d(4, 1, stride=3), (2, 8, 11, 12), None, "batch-as-one-image"),
    "batch too high for a texture": (_conv2d(4, 1), (2, 8, 9000, 1), None, "batch-as-one-image"),
    "lengths too high for a texture": (_conv2d(4, 1), (700, 8, 8, 31), _ALONG_TWO, ""),
    "transposed sequence": (_transposed1d(4, 5, 3, 1, 1), _SEQUENCE, None, "convolution-written-out"),
    "transposed sequences": (
        _transposed1d(4, 4, 3, 2, 2, groups=2, dilation=2),
        (3, 8, 12),
        None,
        "convolution-written-out",
    ),
    "transposed sequence of a length": (
        _transposed1d(6, 4, 2, 1, groups=2),
        _SEQUENCE,
        _ALONG_TWO,
        "convolution-written-out",
    ),
    "transposed points": (_transposed1d(4, 1, 2, 0), _SEQUENCE, _ALONG_TWO, "convolution-written-out"),
    "places": (_Lambda(lambda _, x: x[0, x.argmax(1)[0]]), _SEQUENCE, _ALONG_TWO, ""),
    "instance norm": (
        _Lambda(lambda p, x: p["n"](x), n=nn.InstanceNorm2d(8)),
        _IMAGE,
        None,
        "instance-norm-as-group-norm group-norm-completed",
    ),
    "alias": (
        _Lambda(lambda _, x: (y := x + 1, y.detach(), y.expand(1, 8, 12))),
        _SEQUENCE,
        None,
        "aliases-as-themselves",
    ),
    "expanded input": (
        _Lambda(lambda _, x: x.expand(1, 8, 12) * 2),
        _SEQUENCE,
        None,
        "aliases-as-themselves",
    ),
}
_WORKED_AROUND = {code for *_, codes in _REPAIRED.values() for code in codes.split()}


@pytest.mark.parametrize("name", _REPAIRED)
def test_worked_around(name):
    """What the runtime's shaders do not take is written out, and no more, and computes the same at every length."""
    module, sizes, dynamic, code = _REPAIRED[name]
    torch.manual_seed(0)
    before = _program(module, torch.randn(sizes), dynamic=dynamic)
    repaired = repair(before, AFTER_TABLES)
    found = {note.code for note in repaired.repairs} & _WORKED_AROUND
    assert found == set(code.split())
    old, new = before.module(), repaired.exported.module()
    for length in (sizes[2],) if dynamic is None and len(sizes) > 2 else (4, 17, 32) if dynamic else (None,):
        given = torch.randn(sizes if length is None else (*sizes[:2], length, *sizes[3:]))
        with torch.no_grad():
            torch.testing.assert_close(new(given), old(given), rtol=1e-5, atol=1e-5)
    assert str(repaired.exported.range_constraints) == str(before.range_constraints)


def test_what_is_no_number():
    """Functions and medians of infinities, zeros of either sign and of what is no number."""
    x = torch.tensor([[3.0, -torch.inf, -0.0, 0.0, torch.nan, 1e30], [1.0, -2.0, torch.inf, 0.5, 5e30, -0.0]])
    module = _Lambda(
        lambda _, x: (
            *(x.signbit(), x.copysign(x.roll(1, 1)), x.fmax(x.roll(1, 1)), x.angle(), x.hypot(x.roll(1, 1))),
            *(x.median(1).values, x.median(), x.nanmedian(1).values, x.cummax(1).values, *x.kthvalue(6, 1)),
            *(x[:, :4].logcumsumexp(1), x.abs().log(), (x * 1).sign(), (x * 1).isnan(), (x * 1).isinf()),
            *((x * 1) == 0, (x * 1) != 0, ((x * 1) == torch.inf) | (x < 0)),
        )
    )
    before = _program(module, x)
    after = repair(before, AFTER_TABLES).exported
    torch.testing.assert_close(after.module()(x), before.module()(x), rtol=1e-6, atol=0, equal_nan=True)


def test_channels_last_weights():
    """A weight in channels_last makes no result of the program so: it is put in order, values kept."""
    module = _conv2d(8, 3).to(memory_format=torch.channels_last)
    repaired = repair(_program(module, torch.randn(_IMAGE)), AFTER_TABLES)
    assert {note.code for note in repaired.repairs} == {"constants-in-order"}
    values = [n.meta["val"] for n in repaired.exported.graph.nodes if n.op != "output"]
    assert all(v.is_contiguous() for v in values if isinstance(v, torch.Tensor))


class _Positions(nn.Module):
    """Counts in each of two layers, as transformers' caches do, and a count that is set before it is read."""

    def __init__(self, apart):
        super().__init__()
        for name, start in (("first", 0), ("second", apart), ("unread", 5)):
            self.register_buffer(name, torch.tensor(start))

    def forward(self, x, position):
        read = aten.copy(self.unread, position.sum())
        self.unread.copy_(read)
        self.first.add_(2)
        self.second.add_(2)
        return x + self.first, x * self.second + read


@pytest.mark.parametrize(("apart", "codes"), [(0, {"equal-state-kept-once"}), (1, set())])
def test_states(apart, codes):
    """A buffer that is overwritten before it is read is dropped, equal ones are one, unequal ones stay two."""
    before = _program(_Positions(apart), torch.randn(3), torch.tensor([3]))
    done = repair(before, (copies_as_sources, unread_state_dropped, equal_state_kept_once))
    assert {note.code for note in done.repairs} == {"copies-as-sources", "unread-state-dropped", *codes}
    assert len(done.exported.graph_signature.buffers_to_mutate) == 2 - len(codes)
    calls = [(torch.randn(3), torch.tensor([at])) for at in (4, 2, 9)]
    _same(before, done.exported, *calls)


def test_equal_buffers_of_which_one_is_only_read():
    """What is written is not taken for a constant of the same value."""

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(3))
            self.register_buffer("zero", torch.zeros(3))

        def forward(self, x):
            self.count.add_(x)
            return self.count + 1, self.zero + 1

    before = _program(Counts(), torch.randn(3))
    assert repair(before, (equal_state_kept_once, computed_once)).repairs == ()


def test_computed_once():
    """Equal computations of equal constants are one; random numbers and other dtypes are not."""

    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("one", torch.ones(4, 4).tril().bool())
            self.register_buffer("two", torch.ones(4, 4).tril().bool())

        def forward(self, x, at):
            first = x.masked_fill(self.one[at], 0.0)
            second = (x * 2).masked_fill(self.two[at], 0.0)
            return first + second, x.to(torch.float64).sum(), x.to(torch.float32).sum() + torch.rand(4)[0] * 0

    before = _program(Layers(), torch.randn(4), torch.tensor(2))
    after, (note,) = computed_once(before)
    assert note.code == "computed-once"
    before_and_after = ([n.target for n in each.graph.nodes] for each in (before, after))
    assert [
        sum(t in {aten.index.Tensor, aten.select.int} for t in targets) for targets in before_and_after
    ] == [3, 2]
    _same(before, after, (torch.randn(4), torch.tensor(1)))


def _view_pairs(x):
    return x.view(*x.shape[:3], -1, 2).unbind(-1)


def _selected_pairs(x):
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    return pairs[..., 0], pairs[..., 1]


def _stacked(even, odd):
    return torch.stack([even, odd], -1).flatten(3)


def _concatenated(even, odd):
    return torch.cat([even[..., None], odd[..., None]], -1).view(*even.shape[:3], -1)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("split", "join"), [(_view_pairs, _stacked), (_selected_pairs, _concatenated)])
def test_interleaved_rotary_embeddings(split, join, dynamic):
    """Pairs of columns are taken apart and put together without a fifth dimension."""

    class Rotary(nn.Module):
        def forward(self, x, cos, sin):
            even, odd = split(x)
            return join(even * cos - odd * sin, even * sin + odd * cos) * 1.0

    def inputs(rows):
        return torch.randn(2, rows, 4, 16), torch.randn(1, rows, 1, 8), torch.randn(1, rows, 1, 8)

    rows = {1: Dim("rows", min=2, max=9)} if dynamic else None
    before = _program(Rotary(), *inputs(3), dynamic=(rows, rows, rows) if dynamic else None)
    done = repair(before, (stacks_as_slices, operators_in_four_dimensions))
    assert {n.code for n in done.repairs} == {"stacks-as-slices", "operators-in-four-dimensions"}
    ranks = [
        n.meta["val"].ndim for n in done.exported.graph.nodes if isinstance(n.meta.get("val"), torch.Tensor)
    ]
    assert max(ranks) == 4
    _same(before, done.exported, inputs(3), inputs(7 if dynamic else 3))


@pytest.mark.parametrize("spelling", ["interleave", "expand"])
def test_repeated_heads_are_more_rows(spelling):
    """A product with repeated heads has each head once."""

    def repeated(x):
        if spelling == "interleave":
            return x.repeat_interleave(3, 1)
        return x[:, :, None].expand(2, 2, 3, 5, 8).reshape(2, 6, 5, 8)

    class Attention(nn.Module):
        def forward(self, q, k, v):
            return torch.matmul(torch.matmul(q, repeated(k).transpose(2, 3)), repeated(v))

    torch.manual_seed(0)
    inputs = torch.randn(2, 6, 4, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    before = _program(Attention(), *inputs)
    after, (note,) = repeats_as_rows(before)
    assert (note.code, len(note.nodes)) == ("repeats-as-rows", 2)
    assert not {n.target for n in after.graph.nodes} & {aten.repeat_interleave.self_int, aten.expand.default}
    torch.testing.assert_close(after.module()(*inputs), before.module()(*inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("batch", "after"), [(1, (2, 6, 5, 4)), (2, (2, 6, 4, 5))])
def test_expansions_that_are_more_than_repeated_heads(batch, after):
    """Keys that are expanded along their batch too, or viewed in other sizes."""

    class Product(nn.Module):
        def forward(self, x, keys):
            return torch.matmul(x, keys[:, :, None].expand(2, 2, 3, 5, 4).reshape(after))

    before = _program(Product(), torch.randn(2, 6, 4, after[2]), torch.randn(batch, 2, 5, 4))
    assert repeats_as_rows(before) == repeats_as_concatenation(before) == (before, ())


class _Rms(nn.Module):
    def forward(self, x):
        return torch.rms_norm(x, (4,)) + 1


def test_what_repairs_require():
    """Every order that is used keeps what each repair asks for; one that does not names the repair, and what it misses."""
    program = _program(_Rms(), torch.randn(2, 4))
    for rules in (
        BEFORE_SURVEY,
        *(after_tables(half=half, state=state) for half in (True, False) for state in State),
    ):
        repair(program, rules)
    assert set(CONTRACTS) <= {*AFTER_TABLES, *after_tables(half=True, state=State.OWN)}
    late = [*(rule for rule in AFTER_TABLES if rule is not fold_constants), fold_constants]
    with pytest.raises(LoweringError, match="raise_mask_fills runs before fold_constants"):
        repair(program, late)
    with pytest.raises(LoweringError, match="write_out_attention runs before raise_mask_fills"):
        repair(program, [write_out_attention, raise_mask_fills_in_half])


def _halved(_exported):
    class Halved(nn.Module):
        def forward(self, x):
            return x.half()

    return _program(Halved(), torch.randn(2, 4)), (Repair(code="halved", nodes=(), detail=""),)


def _one_more(_exported):
    class OneMore(nn.Module):
        def forward(self, x, y):
            return torch.rms_norm(x, (4,)) + y

    given = (torch.randn(2, 4), torch.ones(1))
    return _program(OneMore(), *given), (Repair(code="one-more", nodes=(), detail=""),)


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        (_halved, r"_halved makes result 0 torch.float16\[2, 4\], which was torch.float32\[2, 4\]"),
        (_one_more, "_one_more changes the program's inputs"),
    ],
)
def test_what_repairs_ensure(rule, what):
    """A repair after which callers get another type, or give another number of inputs, is named."""
    with pytest.raises(LoweringError, match=what):
        repair(_program(_Rms(), torch.randn(2, 4)), [rule])


def test_operators_that_repairs_remove(monkeypatch):
    """One that says that none of an operator is left, and leaves one, is named with the place."""

    def write_nothing(exported):
        return exported, (Repair(code="nothing", nodes=(), detail=""),)

    removes = Contract(removes=(aten.rms_norm.default,))
    monkeypatch.setattr("vkfuse.rewrite.repairs.CONTRACTS", {write_nothing: removes})
    with pytest.raises(LoweringError, match=r"write_nothing leaves aten\.rms_norm\.default at rms_norm"):
        repair(_program(_Rms(), torch.randn(2, 4)), [write_nothing])


@settings(max_examples=40)
@given(batch=st.integers(1, 3), repeats=st.integers(1, 5), width=st.integers(1, 4), flat=st.booleans())
def test_rows_that_are_kept_once_are_read_as_all(batch, repeats, width, flat):
    """[batch, 1, width] of a file is read as the whole table, row by row, whatever its rows are taken for."""
    row = np.arange(batch * width, dtype=np.float32).reshape(batch, 1, width)
    whole = np.broadcast_to(row, (batch, repeats, width))
    shape = (batch, repeats * width) if flat else (batch * repeats, width)
    data = memoryview(row.tobytes())
    constant = ConstantTensor(
        name="row", shown="row", dims=row.shape, dtype=ScalarType.FLOAT, nbytes=len(data), data=data
    )
    first = next(matrices(constant, *shape))
    read = np.concatenate([first.read(low, low + 1) for low in range(shape[0])])
    assert np.array_equal(read, whole.reshape(shape))
