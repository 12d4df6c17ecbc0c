"""Numbers off tensors that say where to read and write, and ExecuTorch's own operators over a cache, become torch's."""

import pytest
import torch
from executorch.examples.models.llama.source_transformation.custom_kv_cache import (
    QuantizedCacheType,
    QuantizedKVCache,
)
from executorch.examples.models.llama.source_transformation.sdpa import QuantizedSDPA
from torch import nn
from torch.export import Dim

from vkfuse.lower.numbers import number_only_a_run_knows
from vkfuse.program.kernels import silenced_kernels
from vkfuse.program.load import from_exported
from vkfuse.program.operators import register_operators
from vkfuse.rewrite.repairs import AFTER_TABLES, repair
from vkfuse.rewrite.repairs.llm_operators import llm_operators_written_out
from vkfuse.rewrite.repairs.numbers import ITEMS
from vkfuse.rewrite.repairs.positions import assertions_dropped, positions_as_tensors, unread_numbers_dropped

aten = torch.ops.aten


def _program(module, *inputs, dynamic=None):
    return from_exported(torch.export.export(module.eval(), inputs, dynamic_shapes=dynamic)).exported


class _Reads(nn.Module):
    """Everything that `start` int [1] may say of a table [32, 4], for as many rows as `x` [rows] has."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.randn(32, 4))

    def forward(self, x, start):
        at, rows = start[0].item(), x.shape[0]
        torch._check(at >= 0)
        torch._check(at + rows <= 32)
        sliced = self.table.narrow(0, at, rows)
        positions = torch.arange(rows) + at
        before = torch.arange(32) < at
        shifted = self.table.t().narrow(1, at + 0, rows)
        return sliced + x[:, None], positions, before, shifted, self.table[at], x * at


class _Writes(nn.Module):
    """A table [32, 4] after rows at `start`, and a copy of it after one row of its transpose there."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.randn(32, 4))

    def forward(self, x, start):
        at, rows = start[0].item(), x.shape[0]
        torch._check(at >= 0)
        torch._check(at + rows <= 32)
        written = self.table.clone()
        written[at : at + rows] = x[:, None]
        return written, torch.select_scatter(self.table.t(), self.table[0], 1, at)


@pytest.mark.parametrize("model", ["_Reads", "_Writes"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("dynamic", [False, True])
def test_positions(dynamic, dtype, model):
    """Reads and writes give the same bits at other positions and lengths; no number is read off a tensor any more."""
    shapes = ({0: Dim("rows", min=2, max=8)}, {}) if dynamic else None
    before = _program(globals()[model](), torch.randn(3), torch.tensor([2], dtype=dtype), dynamic=shapes)
    after, (note,) = positions_as_tensors(before)
    after, _ = unread_numbers_dropped(after)
    assert note.code == "positions-as-tensors"
    assert not [n for n in after.graph.nodes if n.target in ITEMS or n.target == aten._assert_scalar.default]
    assert number_only_a_run_knows({"forward": before})
    assert not number_only_a_run_knows({"forward": after})
    old, new = before.module(), after.module()
    for rows, at in ((3, 0), (3, 29), *(((8, 24), (2, 7)) if dynamic else ())):
        inputs = (torch.randn(rows), torch.tensor([at], dtype=dtype))
        for one, other in zip(new(*inputs), old(*inputs), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


class _OneHot(nn.Module):
    """Which decomposes to what it makes, and two assertions of what it is made of."""

    def forward(self, x):
        return nn.functional.one_hot(x, 4).float() * 2


def test_assertions():
    """What is asserted of values is not computed, and an index that is one of none is one of none as before."""
    before = _program(_OneHot(), torch.tensor([1, 3]))
    after, _ = assertions_dropped(before)
    left = {node.target for node in after.graph.nodes if node.op == "call_function"}
    assert aten._assert_async.msg in {node.target for node in before.graph.nodes}
    assert not left & {aten._assert_async.msg, aten.any.dims, aten.ge.Scalar, aten.lt.Scalar}
    x = torch.tensor([0, 2])
    assert torch.equal(after.module()(x), before.module()(x))


def test_positions_from_the_end():
    """Rows at a number of which nothing says that it is not negative."""

    class Rows(nn.Module):
        def forward(self, x, at):
            number = at.item()
            return x[number], torch.select_scatter(x, 2 * x[:, 0], 1, number - 1)

    before = _program(Rows(), torch.randn(4, 4), torch.tensor([2]))
    after, _ = positions_as_tensors(before)
    for at in (0, 3, -1, -3):
        inputs = torch.randn(4, 4), torch.tensor([at])
        for one, other in zip(after.module()(*inputs), before.module()(*inputs), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_sizes_that_follow_from_values_stay():
    """How many rows are read is no position: the number stays, and so does what asserts of it."""

    class Some(nn.Module):
        def forward(self, x, many):
            n = many[0].item()
            torch._check(n >= 1)
            torch._check(n <= 8)
            return x[:n] * 2

    before = _program(Some(), torch.randn(8, 4), torch.tensor([3]))
    assert positions_as_tensors(before) == (before, ())
    assert unread_numbers_dropped(before) == (before, ())


class _Attention(nn.Module):
    """A cache of 16 columns written from a position on, and attended to; grouped heads where `heads` is 4."""

    def __init__(self, heads, mask, *, causal, indexed=False):
        super().__init__()
        self.register_buffer("keys", torch.zeros(1, 16, 2, 8))
        self.register_buffer("values", torch.zeros(1, 16, 2, 8))
        self.register_buffer("mask", mask)
        self._heads, self._causal, self._indexed = heads, causal, indexed

    def forward(self, x, position):
        at = position[0].item()
        torch._check(at >= 0)
        torch._check(at + x.shape[1] <= 16)
        query = x.repeat(1, 1, self._heads // 2, 1)
        for cache, value in ((self.keys, x), (self.values, x + 1)):
            if self._indexed:
                indices = (position + torch.arange(x.shape[1]))[None]
                torch.ops.llama.update_cache_with_indices(value, cache, at, indices)
            else:
                torch.ops.llama.update_cache(value, cache, at)
        return torch.ops.llama.custom_sdpa(query, self.keys, self.values, at, self.mask, 0.0, self._causal)


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("heads", [2, 4])
@pytest.mark.parametrize("kind", ["causal", "all so far", "mask"])
def test_operators_over_a_cache(kind, heads, rows, indexed):
    """Call after call of one program, against ExecuTorch's own kernels; no operator of theirs is left."""
    mask = torch.randn(rows, 16) if kind == "mask" else None
    module = _Attention(heads, mask, causal=kind == "causal", indexed=indexed)
    with silenced_kernels():
        before = _program(module, torch.randn(1, rows, 2, 8), torch.tensor([0]))
        after, (note,) = llm_operators_written_out(before)
        after, _ = unread_numbers_dropped(after)
        assert note.code == "llm-operators-written-out"
        assert not [
            n for n in after.graph.nodes if "llama" in str(n.args) + str(n.target) or n.target in ITEMS
        ]
        old, new = before.module(), after.module()
        for at in (0, rows, 2 * rows, 16 - rows, 1):
            inputs = (torch.randn(1, rows, 2, 8), torch.tensor([at]))
            torch.testing.assert_close(new(*inputs), old(*inputs), rtol=1e-5, atol=1e-6)


register_operators()


class _QuantizedAttention(nn.Module):
    """ExecuTorch's attention over its caches of bytes, 16 columns of 2 heads, as `quantize_kv_cache` makes it."""

    def __init__(self):
        super().__init__()
        self.cache = QuantizedKVCache(1, 16, 2, 8, QuantizedCacheType.AffineAsymmetric, True, False)
        self.attend = QuantizedSDPA(16, self.cache)

    def forward(self, x, position):
        query, rows = x.transpose(1, 2), x.transpose(1, 2).contiguous()
        keys, values = self.cache.update(position, rows, rows + 1)
        return self.attend(position, query, keys, values, 1, x.shape[1], None)


@pytest.mark.parametrize("rows", [1, 3])
def test_attention_over_caches_of_bytes(rows):
    """Call after call, against ExecuTorch's own kernel: its caches become floats, in the order in which they lie.

    Whole models with such caches, four to six calls of one to five rows, were right on the 1.5.0 runtime.
    """
    with silenced_kernels():
        before = _program(_QuantizedAttention(), torch.randn(1, rows, 2, 8), torch.tensor([0]))
        after = repair(before, AFTER_TABLES).exported
        kept = after.graph_signature.buffers_to_mutate.values()
        assert {after.state_dict[name].dtype for name in kept} == {torch.float32}
        old, new = before.module(), after.module()
        for at in (0, rows, 2 * rows, 16 - rows, 1):
            inputs = (torch.randn(1, rows, 2, 8), torch.tensor([at]))
            torch.testing.assert_close(new(*inputs), old(*inputs), rtol=1e-5, atol=1e-5)
