"""Attention over caches as the runtime's own operator has it, for what a real runtime computed of it."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.export import Dim, ExportedProgram, export


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """`heads` of queries over `keys` of caches [1, keys, columns, size]; calls of `counts` rows, of any if they differ."""

    heads: int
    keys: int
    size: int
    columns: int
    counts: tuple[int, ...]
    fp16: bool = False


KINDS = {
    "grouped": Kind(heads=6, keys=2, size=12, columns=33, counts=(1,) * 5),
    "any length": Kind(heads=4, keys=4, size=8, columns=64, counts=(5, 1, 7, 2, 1, 30)),
    "five rows": Kind(heads=4, keys=1, size=16, columns=40, counts=(5, 5, 5)),
    "beyond a texture": Kind(heads=4, keys=2, size=16, columns=2049, counts=(1,) * 4),
    "beyond a texture, any length": Kind(heads=4, keys=2, size=16, columns=2049, counts=(3, 1, 40)),
    "halves": Kind(heads=6, keys=2, size=16, columns=64, counts=(1,) * 4, fp16=True),
}


class Attention(nn.Module):
    """[1, rows, 8] -> [1, rows, 8], what `start` and those before it wrote attended to."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind, width = kind, kind.keys * kind.size
        self.queries = nn.Linear(8, kind.heads * kind.size)
        self.keys, self.values = nn.Linear(8, width), nn.Linear(8, width)
        self.out = nn.Linear(kind.heads * kind.size, 8)
        for name in ("key_cache", "value_cache"):
            self.register_buffer(name, torch.zeros(1, kind.keys, kind.columns, kind.size))

    def forward(self, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        rows, at = x.shape[1], torch.arange(x.shape[1]) + start
        query, key, value = (
            part(x).view(1, rows, -1, self.kind.size).transpose(1, 2)
            for part in (self.queries, self.keys, self.values)
        )
        self.key_cache.index_copy_(2, at, key)
        self.value_cache.index_copy_(2, at, value)
        seen = torch.arange(self.kind.columns) <= at[:, None]
        attended = nn.functional.scaled_dot_product_attention(
            query, self.key_cache, self.value_cache, seen[None, None], enable_gqa=True
        )
        return self.out(attended.transpose(1, 2).reshape(1, rows, -1))


def program(kind: Kind) -> ExportedProgram:
    """The program of a kind, its weights the same each time."""
    torch.manual_seed(0)
    one = len({*kind.counts}) == 1
    dynamic = None if one else ({1: Dim("rows", min=1, max=min(64, kind.columns) - 1)}, None)
    return export(Attention(kind).eval(), calls(kind)[0], dynamic_shapes=dynamic)


def calls(kind: Kind) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Calls one after the other, the last one at the end of the cache."""
    random, at, found = torch.Generator().manual_seed(1), 0, []
    for count in kind.counts:
        start = at if len(found) + 1 < len(kind.counts) else kind.columns - count
        found.append((torch.randn(1, count, 8, generator=random), torch.tensor([start])))
        at += count
    return found
