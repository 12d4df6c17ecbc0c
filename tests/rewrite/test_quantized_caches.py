"""Caches of quantized rows: which of them are kept as floats, call after call the same."""

import copy

import pytest
import torch
from torch import nn

from vkfuse.program.load import from_exported
from vkfuse.rewrite.repairs.quantized_caches import quantized_caches_as_floats


class _Quantized(nn.Module):
    """A row [1, 1, 2, 4] quantized into rows [1, 4, 2, 4] with a scale for each head; `read` of them is returned."""

    def __init__(self, read):
        super().__init__()
        self.register_buffer("rows", torch.full((1, 4, 2, 4), 3, dtype=torch.int8))
        self.register_buffer("scales", torch.full((1, 4, 2, 1), 0.5))
        self.register_buffer("scale", torch.full((1,), 0.25))
        self.register_buffer("other", torch.zeros(1, 4, 2, 4, dtype=torch.int8))
        self._read = read

    def forward(self, row, position):
        return self._read(self, row, position)

    def written(self, row, position):
        """Both written."""
        scale = row.abs().amax(-1, keepdim=True) / 127
        self.rows.index_copy_(1, position, (row / scale).round().to(torch.int8))
        self.scales.index_copy_(1, position, scale)
        return self.rows * self.scales


def _sums(cache, row, position):
    return cache.written(row, position).sum(1)


def _rows_too(cache, row, position):
    return cache.written(row, position).sum(1), cache.rows


def _scales_too(cache, row, position):
    return cache.written(row, position).sum(1), cache.scales + 0


def _running(cache, row, position):
    """What all rows are scaled by is another number in each call."""
    cache.rows.index_copy_(1, position, (row * 4).round().to(torch.int8))
    read = cache.rows * cache.scale
    cache.scale.copy_(cache.scale / 2)
    return read


def _elsewhere(cache, row, position):
    """What is written is kept elsewhere."""
    rows = cache.rows.index_copy(1, position, (row * 4).round().to(torch.int8))
    cache.other.copy_(rows)
    return rows * cache.scale


def _columns(cache, row, position):
    """As many columns as rows: what is written for each row scales each column."""
    rows = cache.rows.index_copy_(1, position, (row * 4).round().to(torch.int8))
    scales = cache.scales.index_copy_(1, position, row[..., :1])
    return rows[0, :, 0] * scales[0, :, 0, 0]


@pytest.mark.parametrize(
    ("read", "fires"),
    [
        (_sums, True),
        (_rows_too, False),
        (_scales_too, False),
        (_running, False),
        (_elsewhere, False),
        (_columns, False),
    ],
)
def test_caches(read, fires):
    """Floats only where nothing else of the state is read, and what a row stands for is the same in every call."""
    torch.manual_seed(0)
    calls = [(torch.randn(1, 1, 2, 4), torch.tensor([at])) for at in (0, 1, 3, 1)]
    before = from_exported(torch.export.export(_Quantized(read), calls[0])).exported
    after, notes = quantized_caches_as_floats(before)
    assert bool(notes) is fires
    old, new = copy.deepcopy(before).module(), copy.deepcopy(after).module()
    for inputs in calls:
        torch.testing.assert_close(new(*inputs), old(*inputs), rtol=0, atol=0)
