"""The program as the thing to compare with: eager results, row by row tables, the runtime's arithmetic, state."""

import pytest
import torch
import torchao  # noqa: F401 - its operators
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.export import export
from torchao.quantization import IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerGroup

from vkfuse.errors import InputError
from vkfuse.program.load import from_exported
from vkfuse.verify import rowwise
from vkfuse.verify.reference import EAGER, Arithmetic, Reference, noisy_runtime


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(96, 64), nn.Linear(64, 96)

    def forward(self, indices):
        return self.head(self.table(indices))


def _tied():
    torch.manual_seed(0)
    module = _Tied().eval()
    config = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))
    quantize_(module, config, lambda part, _: isinstance(part, nn.Embedding | nn.Linear))
    indices = torch.randint(0, 96, (2, 7))
    return module, indices, from_exported(export(module, (indices,))).exported


def test_large_tables_are_dequantized_by_rows(monkeypatch):
    """A lookup and a linear on a table that is never whole give what the whole table gives, in any block size."""
    module, indices, exported = _tied()
    expected = module(indices)
    whole = (Reference(exported)((indices,)))[0]
    torch.testing.assert_close(whole, expected)
    monkeypatch.setattr(rowwise, "_LAZY_FROM", 0)
    monkeypatch.setattr(rowwise, "BLOCK_VALUES", 64 * 5)
    called = []
    monkeypatch.setattr(rowwise.RowTable, "whole", lambda _: called.append(1))
    torch.testing.assert_close(Reference(exported)((indices,))[0], expected)
    assert not called


def test_a_large_table_that_something_else_reads_is_made_whole(monkeypatch):
    """An operator that has no way to take rows gets the whole table, also in a list."""

    class Sum(_Tied):
        def forward(self, indices):
            whole = self.table.weight.dequantize()
            rows = self.table(indices)
            return (
                rows.sum() + whole.sum(),
                torch.einsum("...d,vd->...v", rows, whole),
                torch.cat([whole, whole]),
            )

    torch.manual_seed(0)
    module = Sum().eval()
    config = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))
    quantize_(module, config, lambda part, _: isinstance(part, nn.Embedding))
    indices = torch.randint(0, 96, (2, 7))
    exported = from_exported(export(module, (indices,))).exported
    monkeypatch.setattr(rowwise, "_LAZY_FROM", 0)
    torch.testing.assert_close(Reference(exported)((indices,)), module(indices))


def test_the_runtimes_arithmetic_is_close_but_not_torchs(lowered):
    """With the runtime's rule a single row is not rounded; noise before rounding moves several rows a little."""
    file = lowered("8da4w-one-row")
    reference = Reference(file.exported)
    eager = reference(file.inputs)[0]
    runtime = reference(file.inputs, arithmetic=Arithmetic(dynamic_rows=True))[0]
    assert 1e-3 < float((eager - runtime).abs().max() / eager.abs().max()) < 0.05
    file = lowered("8da4w")
    reference = Reference(file.exported)
    clean = reference(file.inputs, arithmetic=Arithmetic(dynamic_rows=True))[0]
    noisy = [
        reference(file.inputs, arithmetic=noisy_runtime(Arithmetic(dynamic_rows=True), seed))[0]
        for seed in (0, 0, 1)
    ]
    assert torch.equal(noisy[0], noisy[1])
    assert not torch.equal(noisy[0], noisy[2])
    assert float((clean - noisy[0]).abs().max()) < 0.05 * float(clean.abs().max())


class _Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x):
        self.seen.add_(x)
        return self.seen * 1


def test_arithmetics_together_are_what_they_are_alone(lowered, monkeypatch):
    """Several at once read a table's rows once, and each computes what it computes alone, noise included."""
    monkeypatch.setattr(rowwise, "_LAZY_FROM", 0)
    monkeypatch.setattr(rowwise, "BLOCK_VALUES", 64)
    file = lowered("8da4w")
    runtime = Arithmetic(dynamic_rows=True)
    several = [EAGER, runtime, noisy_runtime(runtime, 0), noisy_runtime(runtime, 1)]
    reference = Reference(file.exported)
    alone = [reference(file.inputs, arithmetic=arithmetic)[0] for arithmetic in several]
    read, rows = [], rowwise.RowTable.rows
    monkeypatch.setattr(
        rowwise.RowTable, "rows", lambda table, at, *space: read.append(at) or rows(table, at, *space)
    )
    reference(file.inputs)
    once = len(read)
    together = reference.each(file.inputs, several)
    assert 1 < once == len(read) - once
    for (ours,), theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_products_left_for_later_are_what_they_are_at_once(lowered, monkeypatch):
    """A large product that is an output waits; whole, in rows, and observed it is the same."""
    monkeypatch.setattr(rowwise, "_LAZY_FROM", 0)
    file = lowered("8da4w")
    reference, both = Reference(file.exported), [EAGER, Arithmetic(dynamic_rows=True)]
    wanted = [outputs[0] for outputs in reference.each(file.inputs, both)]
    monkeypatch.setattr(rowwise, "_LATER_FROM", 0)
    monkeypatch.setattr(rowwise, "_ROWS", 3)
    left = [outputs[0] for outputs in reference.each(file.inputs, both)]
    assert all(isinstance(each, rowwise.RowProduct) for each in left)
    parts = [torch.cat(rows) for rows in zip(*rowwise.in_parts(left), strict=True)]
    for want, later, rows in zip(wanted, left, parts, strict=True):
        torch.testing.assert_close(rowwise.made(later), want, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(rows.reshape(want.shape), want, rtol=1e-5, atol=1e-6)
    assert torch.equal(reference(file.inputs, lambda *_: None)[0], reference(file.inputs)[0])


def test_state_advances_in_each_arithmetic_by_itself():
    """A call in one leaves the buffers of the others, and of one alone `reset` puts them back."""
    reference = Reference(from_exported(export(_Counter(), (torch.ones(4),))).exported)
    runtime, ones = Arithmetic(dynamic_rows=True), (torch.ones(4),)
    reference(ones)
    assert [float(found[0][0]) for found in reference.each(ones, [EAGER, runtime])] == [2, 1]
    reference.reset(EAGER)
    assert [float(found[0][0]) for found in reference.each(ones, [EAGER, runtime])] == [1, 2]


@settings(max_examples=60)
@given(
    data=st.data(),
    rows=st.integers(1, 5),
    groups=st.integers(1, 4),
    group=st.sampled_from([1, 4, 32]),
    zeros=st.sampled_from(["none", "all zero", "some"]),
    types=st.sampled_from(
        [
            (torch.float32, torch.float32),
            (torch.bfloat16, torch.bfloat16),
            (torch.float32, torch.bfloat16),
            (torch.float16, torch.float32),
        ]
    ),
)
def test_rows_are_what_torchao_dequantizes(data, rows, groups, group, zeros, types):
    """Bit for bit, with scales of any size and sign, with zero points and without, in each type."""
    scale_type, output = types
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1 << 16)))
    values = torch.randint(-128, 128, (rows, groups * group), generator=generator, dtype=torch.int8)
    exponents = torch.randint(-40, 40, (rows, groups), generator=generator)
    scales = (torch.randn(rows, groups, generator=generator) * 2.0**exponents).to(scale_type)
    points = torch.randint(-8, 8, (rows, groups), generator=generator, dtype=torch.int8)
    point = {"none": None, "all zero": torch.zeros_like(points), "some": points}[zeros]
    args = (values, [1, group], scales, point, torch.int8, -128, 127)
    wanted = torch.ops.torchao.dequantize_affine.default(*args, output_dtype=output)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rowwise, "_LAZY_FROM", 0)
        table = rowwise.RowTable.call("torchao.dequantize_affine.default", args, {"output_dtype": output})
    assert isinstance(table, rowwise.RowTable)
    before = values.clone()
    torch.testing.assert_close(table.whole(), wanted, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(
        table.rows(torch.tensor([rows - 1])), wanted[-1:], rtol=0, atol=0, equal_nan=True
    )
    assert torch.equal(values, before)


def test_state_is_kept_apart_from_the_program():
    """Buffers advance from call to call, `reset` puts them back, and the program itself is not touched."""
    exported = from_exported(export(_Counter(), (torch.ones(4),))).exported
    reference = Reference(exported)
    assert [float(reference((torch.ones(4),))[0][0]) for _ in range(2)] == [1, 2]
    reference.reset()
    assert float(reference((torch.ones(4),))[0][0]) == 1
    assert float(exported.state_dict["seen"].sum()) == 0


def test_the_number_of_inputs_is_checked():
    """Too few or too many inputs are input errors."""
    reference = Reference(from_exported(export(nn.ReLU(), (torch.ones(4),))).exported)
    for inputs in ((), (torch.ones(4), torch.ones(4))):
        with pytest.raises(InputError, match="inputs than"):
            reference(inputs)


def test_inputs_that_the_program_cannot_take_are_input_errors():
    """An index outside of a table is said to be the input's fault, not vkfuse's."""
    _, _, exported = _tied()
    with pytest.raises(InputError, match=r"fails on these inputs: .*range"):
        Reference(exported)((torch.tensor([[96] * 7] * 2),))
