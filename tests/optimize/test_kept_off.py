"""What the runtime has, but not with these arguments, stays on the CPU by itself; the rest of its kind does not."""

import torch
from outcome import worst_error
from programs import export, indices, quantize
from torch import nn
from torch.nn import functional


class _Everything(nn.Module):
    """Rows of a 4-bit table [2, 8, 64] through one operator after another, in pairs: as the runtime has it, and not."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(100, 64)
        self.norms = nn.ModuleList((nn.LayerNorm(64), nn.LayerNorm((8, 64)), nn.GroupNorm(2, 8)))

    def forward(self, tokens):
        rows = self.table(tokens)
        image = rows[:, None]
        total = rows.reshape(-1).sum(0)
        return (
            functional.avg_pool2d(image, 2, stride=2),
            functional.avg_pool2d(image, 2),
            rows.mean(-1),
            image.mean((0, 1, 2)),
            rows + rows,
            total + total,
            torch.div(rows, 0.5, rounding_mode="floor"),
            torch.div(rows, 0.5, rounding_mode="trunc"),
            rows**2,
            rows.abs() ** rows,
            *(norm(rows) for norm in self.norms),
        )


def _build():
    return export(quantize(_Everything(), nn.Embedding), indices(2, 8))


def test_kept_off_one_by_one(outcome_of):
    """Each is named with its reason, once; the file is right at every output."""
    outcome = outcome_of(_build)
    on_cpu = {
        name: (operator.count, operator.reason) for name, operator in outcome.report.delegation.cpu.items()
    }
    expected = {
        "aten::avg_pool2d.out": None,  # a stride that is left out is the window
        "aten::mean.out": None,  # reduced in three dimensions, in the delegate
        "aten::add.out": (1, "two-scalars"),
        "aten::div.out_mode": (1, "division-always-floored"),
        "aten::pow.Tensor_Tensor_out": (1, "pow-of-negative"),
        "aten::native_layer_norm.out": (1, "layer-norm-shape"),
    }
    assert expected == {name: on_cpu.get(name) for name in expected}
    assert outcome.report.loadable.ok
    assert worst_error(outcome.exported, outcome.path) < 1e-5


class _ChannelsLast(nn.Module):
    """Images in channels_last through a convolution, others put in channels_last between two; and as they came."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)

    def forward(self, images, others):
        hidden = self.first(others).to(memory_format=torch.channels_last)
        return self.second(hidden + 1), self.first(images), images * 2


def _channels_last():
    images = torch.randn(1, 3, 8, 8)
    return export(_ChannelsLast(), images.to(memory_format=torch.channels_last), images)


def test_channels_last(outcome_of):
    """The runtime ignores orders of dimensions: tensors enter and leave its delegates in the default one."""
    outcome = outcome_of(_channels_last)
    assert {"inputs-in-order", "copies-in-order"} <= {repair.code for repair in outcome.report.repairs}
    assert {o.reason for o in outcome.report.delegation.cpu.values()} == {"dim-order-ignored"}
    assert outcome.report.verify.ok
    assert worst_error(outcome.exported, outcome.path) < 1e-5


class _Choices(nn.Module):
    """Rows of a 4-bit table [2, 8, 64] chosen by comparing them, with numbers and with each other."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(100, 64)

    def forward(self, tokens):
        rows = self.table(tokens)
        other = rows.mean(-1, keepdim=True) + 0.25 * rows
        return (
            torch.where(rows > 0.1, rows * 2, torch.expm1(rows)),
            torch.where(rows[:, :1] <= other, rows, other),
            torch.where(rows[..., :3] >= rows[..., 3:6], rows[..., :3], rows[..., 4:7]),
            torch.where(other < 0, other, rows.std(-1, keepdim=True)),
        )


def _choices():
    return export(quantize(_Choices(), nn.Embedding), indices(2, 8))


def test_choices_by_comparing(outcome_of):
    """Floats are compared in the delegate, and nowhere else: exact on the runtime in textures and in buffers."""
    outcome = outcome_of(_choices)
    delegation = outcome.report.delegation
    assert (delegation.subgraphs, delegation.cpu) == (1, {})
    assert {f"aten.{name}" for name in ("gt.Scalar", "lt.Scalar", "le.Tensor", "ge.Tensor")} <= {
        *delegation.vulkan
    }
    assert outcome.report.verify.ok
    assert worst_error(outcome.exported, outcome.path) < 1e-5


class _Norms(nn.Module):
    """RMS norms of rows [2, 8, 64]: with a weight for each column, a number, and weights for each of two heads."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(100, 64)
        self.norm = nn.RMSNorm(64)
        self.plain, self.halved = (nn.RMSNorm(size, elementwise_affine=False) for size in (64, 32))
        self.heads = nn.Parameter(torch.rand(2, 32))

    def forward(self, tokens):
        rows = self.table(tokens)
        return self.norm(rows), self.plain(rows) * 0.8, self.halved(rows.view(2, 8, 2, 32)) * self.heads


def _norms():
    return export(quantize(_Norms(), nn.Embedding), indices(2, 8))


def test_norms_by_other_factors(outcome_of):
    """Upstream takes any factor behind an RMS norm for its weight: a number was, and gave 1.5 off on the runtime."""
    outcome = outcome_of(_norms)
    delegation = outcome.report.delegation
    assert delegation.vulkan["et_vk.rms_norm.default"] == 1
    assert (delegation.subgraphs, delegation.cpu) == (1, {})
    assert worst_error(outcome.exported, outcome.path) < 1e-5
