"""A table of a .pte that something else reads too: no pack is added beside floats that stay."""

import torch
from executorch.exir import to_edge
from torch import nn

from vkfuse.entry import optimize


class _Tied(nn.Module):
    """A lookup, and a product on the CPU by the same floats where it is `tied`."""

    def __init__(self, *, tied):
        super().__init__()
        self.lookup = nn.Embedding(400, 64)
        self.lookup.weight = nn.Parameter(torch.randint(-7, 8, (400, 64)) * 0.03125)
        self.tied = tied

    def forward(self, indices):
        rows = self.lookup(indices)
        return rows @ self.lookup.weight.T if self.tied else rows


def _optimized(folder, *, tied):
    given = folder / f"{tied}.pte"
    exported = torch.export.export(_Tied(tied=tied).eval(), (torch.tensor([[1, 2]]),))
    given.write_bytes(to_edge(exported).to_executorch().buffer)
    return given.stat().st_size, optimize(given, folder / "out.pte").report


def test_floats_that_something_else_reads(tmp_path):
    """The file stays what it was and says why; the same lookup alone is a pack."""
    before, report = _optimized(tmp_path, tied=True)
    (table,) = report.tables
    assert (table.rung, table.reason.split(":")[0]) == ("untouched", "floats-read-elsewhere")
    assert report.output.bytes <= before
    before, report = _optimized(tmp_path, tied=False)
    assert report.tables[0].rung == "q4"
    assert report.output.bytes < before / 4
