"""Which inputs a file is compared on."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim, export, save

import vkfuse
from vkfuse.commands.verify import read_inputs
from vkfuse.errors import InputError
from vkfuse.pte.enums import ScalarType
from vkfuse.pte.model import Tensor
from vkfuse.verify.domain import domain_of
from vkfuse.verify.inputs import samples, synthetic
from vkfuse.verify.reference import flat_inputs
from vkfuse.verify.verify import verify_file


class _Model(nn.Module):
    """Two tables of different size behind one index, a mask, a float and a position that stays."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.marks = nn.Embedding(50, 4), nn.Embedding(20, 4)

    def forward(self, tokens, mask, x, *, flags):
        y = self.words(tokens) + self.marks(tokens.to(torch.int64).view(tokens.shape))
        return y * mask.unsqueeze(-1) + x, flags


def _exported(*, dynamic=True):
    tokens, mask, x = torch.tensor([[3, 7, 5, 3]]), torch.tensor([[1, 1, 1, 0]]), torch.rand(4, 1) * 2 + 3
    length = Dim("length", min=2, max=40)
    shapes = (
        {"tokens": {1: length}, "mask": {1: length}, "x": {0: length}, "flags": None} if dynamic else None
    )
    flags = torch.tensor([True, False])
    return export(_Model(), (tokens, mask, x), {"flags": flags}, dynamic_shapes=shapes)


def _example(exported):
    args, kwargs = exported.example_inputs
    return flat_inputs(exported, args, kwargs)


def test_tables_and_lengths_are_found():
    """The smallest table behind an index, through casts and views, and the bounds of a dynamic dimension."""
    domain = domain_of(_exported(), [])
    assert dict(domain.rows) == {0: 20}
    assert list(domain.bounds.values()) == [(2, 40)]
    (symbol,) = domain.bounds
    assert [domain.sizes(at, {symbol: 9}) for at in range(4)] == [(1, 9), (1, 9), (9, 1), (2,)]


def test_samples_cover_edges_and_stay_in_range():
    """Example, random ones, first and last rows, shortest and longest; all within what the example shows."""
    exported = _exported()
    made = {sample.label: sample.values for sample in samples(_example(exported), domain_of(exported, []), 3)}
    assert list(made) == [
        "example",
        "random 0",
        "random 1",
        "random 2",
        "first and last rows",
        "shortest",
        "longest",
    ]
    assert made["shortest"][0].shape == (1, 2)
    assert made["longest"][2].shape == (40, 1)
    assert set(made["first and last rows"][0].unique().tolist()) == {0, 19}
    for tokens, mask, x, flags in made.values():
        assert tokens.dtype is torch.int64
        assert 0 <= int(tokens.min()) <= int(tokens.max()) < 20
        assert set(mask.unique().tolist()) <= {0, 1}
        assert 3 <= float(x.min()) <= float(x.max()) <= 5
        assert flags.dtype is torch.bool
    assert not torch.equal(made["random 0"][0], made["example"][0])


def test_samples_are_the_same_each_time():
    """Random inputs do not depend on what ran before."""
    exported = _exported(dynamic=False)
    domain = domain_of(exported, [])
    first, second = ([s.values for s in samples(_example(exported), domain, 2)] for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_an_example_is_made_up_where_there_is_none():
    """Without a stored example inputs are made of the program's shapes, indices within their table."""
    kinds = (ScalarType.LONG, ScalarType.LONG, ScalarType.FLOAT, ScalarType.BOOL)
    specs = [Tensor(scalar_type=kind, sizes=(), dim_order=(), data_buffer_idx=0) for kind in kinds]
    tokens, mask, x, flags = synthetic(domain_of(_exported(), []), specs)
    assert tokens.shape == mask.shape == (1, 8)
    assert int(tokens.max()) < 20
    assert x.shape == (8, 1)
    assert flags.dtype is torch.bool


def test_a_bad_example_is_an_input_error():
    """Inputs of another structure or rank than the program's are refused by position."""
    exported = _exported()
    with pytest.raises(InputError, match="4"):
        flat_inputs(exported, (torch.zeros(1),), {})
    bad = (torch.zeros(4), *_example(exported)[1:])
    with pytest.raises(InputError, match="input 0"):
        list(samples(bad, domain_of(exported, []), 1))


def test_inputs_are_read_from_files(tmp_path):
    """A tuple of tensors by torch.save, a mapping, or the arrays of an .npz, in order."""
    a, b = torch.arange(3), torch.rand(2)
    torch.save((a, b), tmp_path / "tuple.pt")
    torch.save({"x": a, "y": b}, tmp_path / "mapping.pt")
    np.savez(tmp_path / "arrays.npz", x=a.numpy(), y=b.numpy())
    for name in ("tuple.pt", "mapping.pt", "arrays.npz"):
        first, second = read_inputs(tmp_path / name)
        assert torch.equal(first, a)
        assert torch.equal(second, b)


@pytest.mark.parametrize(("ring", "rows"), [(False, 6), (True, 24)])
def test_a_row_is_written_once(ring, rows):
    """Indices of written rows differ, also the first and last rows; a ring's differ in it, and come around."""

    class Cache(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("rows", torch.zeros(6, 4))

        def forward(self, at, x):
            self.rows.index_copy_(0, at % 6 if ring else at, x)
            return self.rows * 2

    length = {0: Dim("length", min=2, max=6)}
    program = export(Cache(), (torch.arange(4), torch.zeros(4, 4)), dynamic_shapes=(length, length))
    program = program.run_decompositions({})
    made = samples(flat_inputs(program, *program.example_inputs), domain_of(program, []), 3, stateful=True)
    written = {sample.label: sample.values[0].tolist() for sample in made}
    assert all(len({place % 6 for place in at}) == len(at) for at in written.values())
    assert all(0 <= place < rows for at in written.values() for place in at)
    assert written["first and last rows"] == [0, rows - 1, 1, rows - 2]
    assert len(written["longest"]) == 6
    assert any(place >= 6 for at in written.values() for place in at) is ring


class _Evil:
    def __reduce__(self):
        return print, ("ran",)


def test_inputs_run_no_code(tmp_path, capsys):
    """A pickle that would call something, and what is no file of inputs, are input errors."""
    torch.save(_Evil(), tmp_path / "evil.pt")
    (tmp_path / "text.npz").write_text("no arrays")
    for name in ("evil.pt", "text.npz", "missing.pt", "/dev/zero", ""):
        with pytest.raises(InputError, match=name):
            read_inputs(tmp_path / name)
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("low", [-(2**63), 2**63 - 1])
def test_integers_up_to_the_greatest(low):
    """An example with the greatest of 64-bit integers is no crash: others are drawn below it."""
    exported = export(nn.ReLU(), (torch.tensor([low, 2**63 - 1]),))
    example = flat_inputs(exported, *exported.example_inputs)
    drawn = [sample.values[0] for sample in samples(example, domain_of(exported, []), 2)]
    assert len(drawn) == 3
    assert all(int(values.min()) >= low - 1 or low < 0 for values in drawn)


class _Attended(nn.Module):
    """Attention over what may be nothing; a reduction of nothing has no largest value."""

    def forward(self, x):
        return (x @ x.transpose(1, 2)).softmax(-1) @ x + x


@pytest.mark.parametrize("least", [0, 1])
def test_calls_of_nothing_are_not_promised(tmp_path, least):
    """A length from 0 on, as torch has it where none is given, is compared from 1 on, and that is said."""
    dynamic = ({1: Dim("length", min=least, max=16)},)
    exported = export(_Attended(), (torch.randn(1, 5, 32),), dynamic_shapes=dynamic)
    assert domain_of(exported, ()).bounds == dict.fromkeys(domain_of(exported, ()).bounds, (1, 16))
    save(exported, tmp_path / "model.pt2")
    command = (
        "optimize",
        "model.pt2",
        "-o",
        "model.pte",
        "--baseline=none",
        "--report=report.json",
        "--no-config",
        "-q",
    )
    subprocess.run([sys.executable, "-m", "vkfuse", *command], cwd=tmp_path, check=True)
    verify = json.loads((tmp_path / "report.json").read_text())["verify"]
    told = [
        "calls with nothing along dimension 1 of input 0: where two operands meet, a delegate makes one row of none"
    ]
    assert (verify["ok"], verify["skipped"]) == (True, [] if least else told)


class _Masked(nn.Module):
    """Rows that a mask empties are no numbers, as those without a value above three."""

    def forward(self, x, keep):
        return x.masked_fill(~keep, -torch.inf).softmax(-1), x.masked_fill(x < 3, -torch.inf).softmax(-1)


@pytest.mark.parametrize(("above", "left_out"), [(8, False), (1, True)])
def test_where_the_program_computes_no_number(tmp_path, above, left_out):
    """What a drawn mask empties is drawn again with the example's flags; where numbers never come of it, it is said."""
    keep = torch.rand(4, 8) < 0.2
    keep[:, 0] = True
    x = torch.linspace(0, 2, 8).repeat(4, 1)
    x[:, :above] += 3
    program, path = export(_Masked(), (x, keep)), tmp_path / "masked.pte"
    vkfuse.optimize(program, path, baseline="none", verify=False)
    verdict = verify_file(path, program)
    assert verdict.status == "same"
    assert ("random 0" in {run.label for run in verdict.runs}) is not left_out
    said = "random 0: on these inputs output 1 of the program itself is no number"
    assert (said in verdict.skipped) is left_out
    (other,) = (each for each in samples((x, keep), domain_of(program, []), 1) if each.drawn)
    again = next(iter(other.others()))
    assert not torch.equal(other.values[1], keep)
    assert torch.equal(again.values[1], keep)
    assert not torch.equal(again.values[0], other.values[0])
