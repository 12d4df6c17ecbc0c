"""Programs that keep state, on small whole numbers, which the GPU adds without rounding."""

import torch
from executorch.examples.models.llama.source_transformation.custom_kv_cache import (
    QuantizedCacheType,
    QuantizedKVCache,
)
from torch import nn
from torch.export import Dim, ExportedProgram

CALLS = 4


class OneRow(nn.Module):
    """A row [1, 2, 1, 4] into a cache [1, 2, 8, 4] that begins with its own numbers, by `write`."""

    def __init__(self, write):
        super().__init__()
        self.register_buffer("cache", torch.arange(64.0).reshape(1, 2, 8, 4))
        self._write = write

    def forward(self, row, position):
        self._write(self.cache, row + 1, position)
        return self.cache * 2


class ManyRows(OneRow):
    """Rows [2, S, 4] of two sequences from a position on, into a cache [2, 8, 4]."""

    def __init__(self):
        super().__init__(None)
        self.cache = torch.arange(64.0).reshape(2, 8, 4)

    def forward(self, rows, position):
        self.cache.index_copy_(1, position + torch.arange(rows.shape[1]), rows + 1)
        return self.cache * 2


class Places(ManyRows):
    """Rows of two sequences at any positions."""

    def forward(self, rows, positions):
        self.cache.index_copy_(1, positions, rows + 1)
        return self.cache * 2


class Quantized(nn.Module):
    """A row [1, 2, 1, 4] into ExecuTorch's cache of bytes, scales and zero points, read as it came, later as bytes."""

    def __init__(self):
        super().__init__()
        self.cache = QuantizedKVCache(1, 8, 2, 4, QuantizedCacheType.AffineAsymmetric)

    def forward(self, row, position):
        keys, values = self.cache.update(position, row, row * 2)
        return (keys + values) * 2


class Window(nn.Module):
    """The last four rows [1, 4, 8], as a convolution over time keeps them: the old value is read to compute the new one."""

    def __init__(self):
        super().__init__()
        self.register_buffer("rows", torch.zeros(1, 4, 8))

    def forward(self, row):
        self.rows.copy_(torch.cat([self.rows[:, 1:], row + 1], 1))
        return self.rows.sum(1)


class Sum(nn.Module):
    """A sum that is read before it grows."""

    def __init__(self):
        super().__init__()
        self.register_buffer("total", torch.ones(1, 8))

    def forward(self, x):
        before = self.total * 3
        self.total.add_(x)
        return before


def _index_copy(cache, row, position):
    cache.index_copy_(2, position, row)


def _assign(cache, row, position):
    cache[:, :, position] = row


def _slice(cache, row, position):
    start = position.item()
    torch._check(start >= 0)
    torch._check(start < cache.shape[2])
    cache[:, :, start : start + 1] = row


def _scatter(cache, row, position):
    cache.scatter_(2, position[None, None, :, None].expand(row.shape), row)


def programs() -> dict[str, ExportedProgram]:
    """Each program by name."""
    row, position, rows = torch.zeros(1, 2, 1, 4), torch.tensor([3]), {1: Dim("rows", min=1, max=8)}
    export = torch.export.export
    return {
        "index_copy": export(OneRow(_index_copy), (row, position)),
        "slice": export(OneRow(_slice), (row, position)),
        "scatter": export(OneRow(_scatter), (row, position)),
        "index_put": export(OneRow(_assign), (row, position)),
        "rows": export(ManyRows(), (torch.zeros(2, 2, 4), position), dynamic_shapes=(rows, None)),
        "places": export(
            Places(), (torch.zeros(2, 2, 4), torch.arange(2)), dynamic_shapes=(rows, {0: rows[1]})
        ),
        "quantized": export(Quantized(), (row, position)),
        "window": export(Window(), (torch.zeros(1, 1, 8),)),
        "sum": export(Sum(), (torch.zeros(1, 8),)),
    }


def calls(name: str) -> list[tuple[torch.Tensor, ...]]:
    """Inputs of several calls in a row of one loaded method."""
    made = torch.Generator().manual_seed(len(name))

    def whole(*shape):
        return torch.randint(0, 9, shape, generator=made).float()

    if name == "window":
        return [(whole(1, 1, 8),) for _ in range(CALLS)]
    if name == "sum":
        return [(whole(1, 8),) for _ in range(CALLS)]
    if name == "quantized":  # in steps of one, from 0 to 255
        ends = torch.tensor([0.0, 255.0]).expand(1, 2, 1, 2)
        steps = [(torch.cat([ends, whole(1, 2, 1, 2) + 0.25], -1), torch.tensor([at])) for at in (7, 0, 3, 7)]
        return [(rows.flip(-1) if turn % 2 else rows, at) for turn, (rows, at) in enumerate(steps)]
    if name == "rows":
        return [(whole(2, n, 4), torch.tensor([at])) for n, at in ((3, 0), (1, 3), (1, 4), (4, 2))]
    if name == "places":
        return [(whole(2, len(at), 4), torch.tensor(at)) for at in ([2, 0, 5], [7], [6, 1, 2, 3, 4], [4, 5])]
    return [(whole(1, 2, 1, 4), torch.tensor([at])) for at in (7, 0, 3, 7)]
