"""Programs as people write them, that were refused, certified and not loadable, or cut up: how each ends.

Each file was run on the 1.5.0 runtime (main of 2026-08-22, Mesa lavapipe), twice, at the shortest, a middle and the longest
length, and was right there, random numbers apart.
"""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from outcome import worst_error
from programs import export, indices, quantize
from torch import nn
from torch.export import Dim
from torch.nn import functional

from vkfuse.errors import VkfuseError
from vkfuse.options import BaselineChoice, Options, Storage, VulkanOptions
from vkfuse.pipeline import optimize
from vkfuse.program.load import from_exported
from vkfuse.verify.reference import Reference

LENGTH = Dim("length", min=2, max=32)
TWO = ({0: 2, 1: LENGTH},)


class _Of(nn.Module):
    """Rows of a 4-bit table [100, 64] and `parts`, put to `use(rows)`, or with parts to `use(rows, tokens, *parts)`."""

    def __init__(self, use, *parts):
        super().__init__()
        table = quantize(nn.Sequential(nn.Embedding(100, 64)), nn.Embedding)
        self.use, self.table, self.parts = use, table, nn.ModuleList(parts)

    def forward(self, tokens):
        return self.use(self.table(tokens), *((tokens, *self.parts) if self.parts else ()))


def _made(use, path, *parts):
    torch.manual_seed(0)
    exported = export(_Of(use, *parts), indices(2, 7), dynamic=TWO)
    return exported, optimize(exported, path, Options(baseline=BaselineChoice.NONE)).report


def _lengths():
    return [(indices(2, n),) for n in (2, 7, 32)]


def _scores(rows):
    heads = rows.view(2, -1, 4, 16).transpose(1, 2)
    return (heads @ heads.transpose(2, 3)).softmax(-1)


def _similar(rows):
    means, first = rows.mean(1), rows[0]
    of_means = functional.cosine_similarity(means[:1], means, dim=-1)
    return (
        *(of_means, functional.cosine_similarity(rows, means[:, None], dim=-1)),
        functional.cosine_similarity(first, means[0], dim=-1),
        functional.pairwise_distance(means[:1], means),
    )


def _chosen(rows):
    scores, lowest = rows @ rows.transpose(1, 2), torch.full_like(rows, -9e15)
    below, beside = torch.tril_indices(4, 4, -1)
    return (
        torch.where(rows > 0, rows, lowest).softmax(-1),
        torch.where(rows > 0, torch.ones_like(rows), torch.full_like(rows, -1.0)),
        torch.where(scores > 0, scores, torch.zeros_like(scores)),
        rows.view(2, -1, 4, 16)[:, :, below, beside],
    )


def _over_heads(rows):
    weights = _scores(rows)
    return (
        *(weights.mean(1), weights.amax((0, 1)), weights.sum((1, 2)), weights.mean((0, 1, 2))),
        *(functional.normalize(weights, dim=1), weights.var(1)),
    )


def _squared(rows):
    weights = _scores(rows)
    long = rows.shape[1]
    return (
        weights - (weights.flatten(2) * 2).view(2, 4, long, long),
        torch.tanh(weights.reshape(8, -1) - 1).reshape(2, 4, -1, long) @ weights,
        rows.new_ones(long**2).sum() + rows,
    )


def _true_of_rows(rows):
    """What is asked of rows, of one and of all of its numbers, whole numbers of them, and their deviations."""
    largest = rows == rows.amax(-1, keepdim=True)
    kept = torch.where(rows.isfinite() & ~rows.isnan().any(-1, keepdim=True), rows, 0.0)
    apart = torch.logical_xor(rows > 0, rows < 0.5) & (rows > -9).all(1, keepdim=True)
    whole = torch.floor(rows * 8) + torch.ceil(rows * 4) - torch.trunc(rows * 2)
    return rows * largest, torch.where(apart, kept, -kept), whole, rows / (rows.std(1, keepdim=True) + 1)


def _in_patches(rows):
    """Patches of images, overlapping, side by side, put together again, and the largest and the mean of each."""
    images = rows.sum(1).tanh().view(2, 1, 8, 8)
    tiles = functional.unfold(images, (2, 4), stride=(2, 4)) * 2
    images = functional.avg_pool2d(images, (1, 1)) + functional.max_pool2d(images, 2).repeat(1, 1, 2, 2)
    return functional.unfold(images, 3, padding=1, stride=2), functional.fold(
        tiles, (8, 8), (2, 4), stride=(2, 4)
    )


def _let_through(rows):
    """What a mask that is known lets through, in three spellings; how much that is need not wait for a run."""
    mask = torch.arange(64) % 7 < 2
    return rows[:, :, mask] - rows[..., mask.nonzero()[:, 0]] * 2, rows.sum(1).masked_select(
        mask.expand(2, 64)
    )


def _scaled_by_lengths(rows):
    return rows * rows.shape[1] ** -0.5, rows / rows.shape[1] ** 0.5 - 1


def _recurrent(rows):
    gates = functional.logsigmoid(rows) + rows.abs().log1p()
    absorbed = torch.einsum("bshd,hdc->bshc", rows.view(2, -1, 4, 16), torch.ones(4, 16, 8))
    solved = rows.mean(1).view(2, 1, 8, 8)
    for i in range(1, 8):
        solved[..., i, :i] = (solved[..., i, :i].unsqueeze(-1) * solved[..., :i, :i].clone()).sum(-2)
    return gates, absorbed, solved * 2, functional.group_norm(rows.mean(1), 4)


@pytest.mark.parametrize(
    ("use", "codes", "cpu"),
    [
        (
            _true_of_rows,
            {"truths-in-the-delegate", "variances-written-out"},
            {f"aten::{name}" for name in ("sym_size.int", "scalar_tensor.out")}
            | {"executorch_prim::sub.Scalar", "dim_order_ops::_to_dim_order_copy.out"},
        ),
        (_in_patches, {"patches-by-slices", "stride-given"}, set()),
        (_let_through, {"known-masks-as-positions", "indices-as-slices", "pairs-of-places"}, set()),
        (
            _scaled_by_lengths,
            {"powers-of-sizes"},
            {f"aten::{name}" for name in ("sym_size.int", "scalar_tensor.out", "pow.Tensor_Scalar_out")}
            | {"dim_order_ops::_to_dim_order_copy.out"},
        ),
        (
            _recurrent,
            {"functions-written-out", "operators-in-four-dimensions", "assignments-concatenated"}
            | {"group-norm-in-four-dimensions"},
            set(),
        ),
        (_similar, {"cosine-similarity-written-out"}, set()),
        (_chosen, {"expansions-as-broadcasts", "indices-as-slices"}, set()),
        (_over_heads, {"reductions-in-three-dimensions"}, set()),
        (
            _squared,
            set(),
            {f"executorch_prim::{name}.Scalar" for name in ("mul", "floordiv")}
            | {f"aten::{name}" for name in ("sym_size.int", "full.out", "sum.IntList_out")},
        ),
    ],
)
def test_one_delegate(use, codes, cpu, tmp_path):
    """What recurrent layers do, similarities, choices, sums over heads, and squares of lengths, divided again."""
    path = tmp_path / "model.pte"
    exported, report = _made(use, path)
    assert codes <= {repair.code for repair in report.repairs}
    assert (report.delegation.subgraphs, {*report.delegation.cpu}, report.verify.ok) == (1, cpu, True)
    assert worst_error(exported, path, _lengths()) < 1e-5


def test_arithmetic_with_lengths(tmp_path):
    """A length beside a tensor, as a whole number or not, is a number to every repair."""
    path = tmp_path / "model.pte"
    exported, report = _made(lambda rows: rows / rows.shape[1] + rows * (rows.shape[1] / 3), path)
    assert report.verify.ok
    assert worst_error(exported, path, _lengths()) < 1e-5


class _Named(nn.Module):
    """Parts by names that torch hides or cannot write in code, one of them twice."""

    def __init__(self):
        super().__init__()
        for name in ("code", "code_", "graph", "class", "inner"):
            self.add_module(name, nn.Linear(32, 32))
        self.inner.add_module("lambda", quantize(nn.Sequential(nn.Embedding(100, 32)), nn.Embedding))

    def forward(self, tokens):
        part = self.get_submodule
        rows = part("inner.lambda")(tokens)
        return part("class")(part("graph")(part("code_")(part("code")(rows))))


def test_names_that_torch_cannot_write(tmp_path):
    """Torch itself decomposes no program whose submodule is called `code` or `class`."""
    exported = export(_Named(), indices(2, 7))
    path = tmp_path / "model.pte"
    report = optimize(exported, path, Options(baseline=BaselineChoice.NONE)).report
    assert (report.delegation.subgraphs, report.verify.ok) == (1, True)
    assert [table.name for table in report.tables] == ["inner.lambda_.0.weight"]


class _Beside(nn.Module):
    """Rows of a 4-bit table beside a constant that is expanded to as many as there are."""

    def __init__(self):
        super().__init__()
        self.table = quantize(nn.Sequential(nn.Embedding(100, 64)), nn.Embedding)
        self.register_buffer("constant", torch.randn(7, 64))

    def forward(self, tokens):
        return torch.cat([self.table(tokens), self.constant.expand(tokens.shape[0], -1, -1)], dim=-1)


def test_a_constant_as_long_as_the_example(tmp_path):
    """Copies are removed by what is true of all lengths: [7, 64] expanded to [n, 7, 64] made n the example's 7."""
    torch.manual_seed(0)
    exported = export(_Beside(), indices(7, 7), dynamic=({0: LENGTH},))
    path = tmp_path / "model.pte"
    report = optimize(exported, path, Options(baseline=BaselineChoice.NONE)).report
    assert (report.delegation.subgraphs, report.verify.ok) == (1, True)
    assert worst_error(exported, path, [(indices(n, 7),) for n in (2, 7, 32)]) < 1e-5


def test_repeats_of_sizes_that_no_input_has(tmp_path):
    """What repeats parts takes its sizes from what it reads: read off the result, no order of operators had them."""

    def use(rows, _, convolution):
        return convolution(rows[:, None]).repeat_interleave(2, dim=3)

    path = tmp_path / "model.pte"
    exported, report = _made(use, path, nn.Conv2d(1, 3, 2, padding=1))
    assert report.verify.ok
    assert worst_error(exported, path, _lengths()) < 1e-5


class _Bytes(nn.Module):
    """A linear of half precision by bytes, one scale for each output."""

    def __init__(self):
        super().__init__()
        self.register_buffer("values", torch.randint(90, 127, (32, 128), dtype=torch.int8))
        self.register_buffer("scales", torch.full((32, 1), 1e-3, dtype=torch.float16))

    def forward(self, x):
        dequantize = torch.ops.torchao.dequantize_affine
        weight = dequantize(
            self.values, [1, 128], self.scales, None, torch.int8, -128, 127, output_dtype=torch.float16
        )
        return functional.linear(x, weight)


def test_sums_before_they_are_scaled(tmp_path):
    """Bytes in half precision, 1,100 by a sum beyond 65504: infinite of a buffer on the runtime, right of a texture."""
    path, options = tmp_path / "model.pte", Options(baseline=BaselineChoice.NONE)
    large, in_buffers = (
        torch.full((3, 128), 80.0).half(),
        replace(options, vulkan=VulkanOptions(storage=Storage.BUFFER)),
    )
    optimize(export(_Bytes(), large), path, options)
    optimize(export(_Bytes(), torch.rand(3, 128).half()), path, in_buffers)
    with pytest.raises(VkfuseError, match="does not compute"):
        optimize(export(_Bytes(), large), path, in_buffers)


class _Masked(nn.Module):
    """Scores of a row's values by a mask, which may leave none: as logarithms, and as shares of the same mask."""

    def __init__(self):
        super().__init__()
        self.table = quantize(nn.Sequential(nn.Embedding(100, 64)), nn.Embedding)

    def forward(self, tokens, kept):
        scores = self.table(tokens).masked_fill(~kept, torch.finfo(torch.float32).min)
        return scores.log_softmax(-1).clamp(min=-100), scores.softmax(-1)


def test_rows_that_a_mask_empties(tmp_path):
    """Of the lowest number alone every value is as likely, in logarithms too: they were infinite."""
    kept = torch.rand(2, 7, 64) > 0.5
    kept[0, 0] = False
    exported = export(_Masked(), indices(2, 7), kept)
    path = tmp_path / "model.pte"
    report = optimize(exported, path, Options(baseline=BaselineChoice.NONE)).report
    assert "mask-fills-raised" in {repair.code for repair in report.repairs}
    assert report.verify.ok
    assert worst_error(exported, path, [(indices(2, 7), kept)]) < 1e-5


class _Filled(nn.Module):
    """Rows of a 4-bit table, and of them those at given positions, which may repeat, filled with a number."""

    def __init__(self):
        super().__init__()
        self.table = quantize(nn.Sequential(nn.Embedding(100, 64)), nn.Embedding)

    def forward(self, tokens, positions):
        rows = self.table(tokens)
        zeroed, firsts = rows.clone(), rows.clone()
        zeroed[:, positions] = 0.0
        firsts[:, positions] = rows[:, :1]
        return rows.index_fill(1, positions, 3.0), zeroed, firsts


def test_positions_may_repeat(tmp_path):
    """What is filled twice is filled once: the product added the number, and verify draws positions without repeats."""
    exported = export(_Filled(), indices(2, 7), torch.tensor([0, 2, 4]))
    path = tmp_path / "model.pte"
    report = optimize(exported, path, Options(baseline=BaselineChoice.NONE)).report
    assert "cache-writes-as-choices" in {repair.code for repair in report.repairs}
    calls = [(indices(2, 7), torch.tensor(at)) for at in ([0, 2, 4], [0, 2, 2], [5, 5, 5])]
    assert worst_error(exported, path, calls) < 1e-5


def test_many_dimensions_of_dynamic_sizes(tmp_path):
    """Operators of five and six dynamic dimensions are in the delegate, where none was, or three operators of five."""

    def use(rows):
        parts = rows.view(2, -1, 4, 2, 8)
        scaled = (parts * parts.mean((3, 4), True)).softmax(-1)
        return scaled.amax(3).flatten(2), scaled.permute(0, 2, 3, 1, 4).flatten(3)

    path = tmp_path / "model.pte"
    exported, report = _made(use, path)
    assert (report.delegation.subgraphs, report.delegation.crossings, report.delegation.cpu) == (1, 3, {})
    assert worst_error(exported, path, _lengths()) < 1e-5


def test_a_number_expanded_to_many_dimensions(tmp_path):
    """A constant of no dimension beside five dynamic ones, which ended in a KeyError."""

    def use(rows):
        parts = rows.view(2, -1, 4, 2, 8)
        return torch.cat([parts, torch.tensor(2.5).expand(2, parts.shape[1], 4, 2, 1)], -1)

    exported, _ = _made(use, tmp_path / "model.pte")
    assert worst_error(exported, tmp_path / "model.pte", _lengths()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_deviations_in_half_over_all(tmp_path, dtype):
    """The CPU's kernel would sum in half: of 8,704 numbers it gave a deviation of 0.49, and of 0.17 in bfloat16."""

    class Deviations(nn.Module):
        def forward(self, x):
            return x.std(), x.var((0, 1, 2)), x.flatten().var(0)

    x = torch.ones(2, 4, 8, 136, dtype=dtype)
    x[..., ::2] = -1
    exported = export(Deviations(), x)
    path = tmp_path / "model.pte"
    assert optimize(exported, path, Options(baseline=BaselineChoice.NONE)).report.verify.ok
    assert worst_error(exported, path, [(x,)]) < 1e-2


def test_rows_that_are_renormalized(tmp_path):
    """`max_norm` of a table of floats, looked up several times: each row once, before the file exists."""

    def use(rows, tokens, table):
        return table(tokens) * rows, table(tokens.flip(1)).sum(1)

    path = tmp_path / "model.pte"
    exported, report = _made(use, path, nn.Embedding(100, 64, max_norm=2.0))
    assert "renormalized" in {repair.code for repair in report.repairs}
    assert report.delegation.subgraphs == 1
    assert worst_error(exported, path, _lengths()) < 1e-5


class _Counting(nn.Module):
    """Keeps what it saw in a parameter."""

    def __init__(self):
        super().__init__()
        self.table = quantize(nn.Sequential(nn.Embedding(100, 64)), nn.Embedding)
        self.seen = nn.Parameter(torch.zeros(64))

    def forward(self, tokens):
        self.seen.add_(self.table(tokens).sum((0, 1)))
        return self.seen * 2


def test_parameters_are_state(tmp_path):
    """A parameter that a call writes to is what a buffer is: the next call finds it, and `verify` compares several."""
    with torch.no_grad():
        exported = torch.export.export(_Counting(), (indices(2, 7),), strict=False)
    report = optimize(exported, tmp_path / "model.pte", Options(baseline=BaselineChoice.NONE)).report
    assert report.verify.ok
    assert any("seen" in note for note in report.notes)


def test_what_is_random_is_not_checked(tmp_path):
    """Dropout left on and drawn noise: the file is written, said to be unchecked, and kept back where a check is asked."""

    def use(rows):
        noise = torch.randn_like(rows)
        return functional.dropout(rows, 0.5, training=True) + noise

    torch.manual_seed(0)
    torch.export.save(export(_Of(use), indices(2, 7), dynamic=TWO), tmp_path / "model.pt2")
    command = [sys.executable, "-m", "vkfuse", "optimize", "model.pt2", "-o", "model.pte", "--baseline=none"]

    def run(*more):
        return subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True, check=False)

    kept = run("-q", "--require=verified")
    assert kept.stderr.startswith("vkfuse: error: 1 of 1 check failed")  # nothing of upstream's before it
    assert (kept.returncode, (tmp_path / "model.pte").exists()) == (1, False), kept.stderr
    done = run("--report=model.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "model.json").read_text())
    assert (report["verify"]["ran"], report["verify"]["ok"]) == (False, None)
    assert "draws random numbers" in report["verify"]["skipped"][0]
    assert "NOT CHECKED" in done.stdout


class _Narrow(nn.Module):
    """What is looked up in half precision, what is computed in it, and in two kinds of it; all is given as float32."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(100, 64, dtype=torch.bfloat16)
        self.layer = nn.Linear(64, 64, dtype=torch.bfloat16)
        self.register_buffer("last", torch.zeros(2, 64, dtype=torch.float16))

    def forward(self, tokens):
        rows = self.table(tokens)
        last = self.last.clone()
        self.last.copy_(rows[:, 0])
        return (
            *(rows.float() * 2, self.layer(rows).float(), last.float(), (last + rows[:, 0]).float()),
            (rows.float() * 2).half().float(),
        )


def test_precision_of_outputs(tmp_path):
    """An output passes by what it is computed in: float32 given of bfloat16 arithmetic was refused.

    What a buffer keeps is of its type.
    """
    exported = export(_Narrow(), indices(2, 7))
    half, short = torch.float16, torch.bfloat16
    assert Reference(from_exported(exported).exported).coarsest == (None, short, half, half, half)
    report = optimize(exported, tmp_path / "model.pte", Options(baseline=BaselineChoice.NONE)).report
    assert report.verify.ok


class _Window(nn.Module):
    """Rows of a 4-bit table, and the last eight that were looked up, moved up by a gather once there are as many."""

    def __init__(self):
        super().__init__()
        self.table = quantize(nn.Sequential(nn.Embedding(100, 64)), nn.Embedding)
        self.register_buffer("cache", torch.zeros(1, 2, 8, 32))

    def forward(self, token, position):
        row = self.table(token).view(1, 1, 2, 32).transpose(1, 2)
        order = (torch.arange(8) + (position >= 7).long()) % 8
        window = self.cache[:, :, order]
        window[:, :, position.clamp(0, 7)] = row
        self.cache.copy_(window)
        return (row @ window.transpose(2, 3)).softmax(-1) @ window


def test_windows_that_are_shifted(tmp_path):
    """A cache stays on the GPU though it is gathered along its third dimension at computed places."""
    exported = export(_Window(), indices(1, 1), torch.tensor([0]))
    options = Options(baseline=BaselineChoice.NONE, runtime="1.5.0")
    report = optimize(exported, tmp_path / "model.pte", options).report
    assert "places-selected" in {repair.code for repair in report.repairs}
    assert {"aten::index.Tensor_out", "aten::copy_"}.isdisjoint(report.delegation.cpu)
    assert (report.delegation.subgraphs, report.verify.ok) == (1, True)
