"""What image models are made of, that was cut up or kept on the CPU: one delegate, and the same values.

Each file was run on the 1.5.0 runtime (main of 2026-08-22, Mesa lavapipe), twice, at one and three images, and right there.
"""

import pytest
import torch
from outcome import worst_error
from programs import export
from torch import nn
from torch.export import Dim
from torch.nn import functional

from vkfuse.options import BaselineChoice, Options
from vkfuse.pipeline import optimize


class _Between(nn.Module):
    """What `use` makes of 16 channels of 13 x 12 pixels, between convolutions."""

    def __init__(self, use):
        super().__init__()
        self.into, self.out, self.use = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 8, 1), use

    def forward(self, images):
        return self.out(self.use(self.into(images)))


def _pooled(size):
    return lambda x: functional.adaptive_avg_pool2d(x, size)


def _resized(mode, size=(17, 9), **options):
    return lambda x: functional.interpolate(x, size, mode=mode, **options)


def _sampled(**options):
    return lambda x: functional.grid_sample(x, 2 * x[:, :2].permute(0, 2, 3, 1), **options)


def _moved_and_pooled(x):
    return functional.adaptive_avg_pool2d(x.permute(0, 2, 3, 1).tanh().permute(0, 3, 1, 2), 1)


def _written_mask(x):
    mask = x.new_zeros((13, 12))
    for count, rows in enumerate((slice(0, -4), slice(-4, -2), slice(-2, None))):
        mask[rows, 3:] = count
    return x + mask.masked_fill(mask != 0, -100.0)


def _padded_volumes(x):
    return functional.pad(x.unflatten(1, (8, 2)), (1, 0, 0, 0, 2, 0)).flatten(1, 2)[:, 8:24, :, 1:]


def _constant_of_five_dimensions(x):
    windows = x.reshape(-1, 2, 2, 4, 13 * 12)
    return (windows + torch.arange(8.0).reshape(1, 1, 2, 4, 1)).reshape(x.shape)


def _parts(x):
    one, two = x.unflatten(1, (2, 2, 4)).permute(1, 0, 3, 2, 4, 5).unbind(0)
    first, rest = (one * two.sigmoid()).split([1, 3], 1)
    return torch.cat([rest, first, two], 1).flatten(1, 2)


def _turned(x):
    return torch.einsum("nhwpqc->nchpwq", x.reshape(-1, 13, 3, 2, 2, 16)).reshape(-1, 16, 26, 6)


def _queries_of_all_windows(x):
    windows = x.unflatten(2, (1, 13)).unflatten(4, (4, 3)).permute(0, 2, 4, 3, 5, 1).reshape(-1, 39, 2, 8)
    queries = functional.adaptive_avg_pool2d(x, (13, 3)).flatten(2).transpose(1, 2).reshape(-1, 39, 2, 8)
    return (windows * queries.repeat_interleave(4, dim=0)).reshape(-1, 16, 13, 12)


def _products(x):
    tiles = x.reshape(-1, 2, 2, 4, 13, 12) @ torch.linspace(-1, 1, 144).reshape(12, 12)
    turned = torch.linspace(-1, 1, 169).reshape(13, 13) @ tiles
    first = turned[:, :, :, :1]
    return (first.transpose(-2, -1) @ turned).reshape(-1, 16, 12, 12)


def _attention_in_blocks(x):
    rows = x.reshape(-1, 2, 3, 13 * 4, 8).transpose(2, 3).reshape(-1, 2, 13, 12, 8)
    return functional.scaled_dot_product_attention(rows, rows, rows.tanh()).reshape(x.shape)


KINDS = {
    "adaptive pool, 1": _moved_and_pooled,
    "adaptive pool, alike": _pooled((1, 4)),
    "adaptive pool, overlapping": _pooled((3, 5)),
    "adaptive pool of rows": lambda x: functional.adaptive_avg_pool1d(x.flatten(2), 9).unflatten(2, (3, 3)),
    "nearest of a half": _resized("nearest", (6, 6)),
    "nearest of no factor": _resized("nearest"),
    "nearest-exact": _resized("nearest-exact"),
    "bicubic": _resized("bicubic"),
    "bicubic, corners": _resized("bicubic", align_corners=True),
    "bilinear of areas": _resized("bilinear", (5, 7), antialias=True),
    "grid over zeros": _sampled(align_corners=False),
    "grid over zeros, corners": _sampled(align_corners=True),
    "grid over edges": _sampled(align_corners=False, padding_mode="border"),
    "mask that is written": _written_mask,
    "patches put together": _turned,
    "queries of all windows": _queries_of_all_windows,
    "large patches": lambda x: functional.unfold(x, 10, stride=2, padding=1)[:, :208].reshape(-1, 16, 13, 9),
    "whole numbers beside floats": lambda x: torch.where(x > 0, x * torch.arange(12), torch.tensor(2)),
    "attention in blocks": _attention_in_blocks,
    "products of six dimensions": _products,
    "parts of six dimensions": _parts,
    "padded volumes": _padded_volumes,
    "constant of five dimensions": _constant_of_five_dimensions,
}


class _Chosen(nn.Module):
    """The rows of some features and of their boxes that have the largest scores, as RT-DETR begins its decoder."""

    def __init__(self):
        super().__init__()
        self.encode, self.score, self.decode = nn.Linear(32, 32), nn.Linear(32, 5), nn.Linear(36, 8)
        self.box = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, x):
        rows = self.encode(x)
        chosen = self.score(rows).amax(-1).topk(8, dim=1)[1].unsqueeze(-1)
        boxes = self.box(rows).gather(1, chosen.repeat(1, 1, 4))
        return self.decode(torch.cat([rows.gather(1, chosen.repeat(1, 1, 32)), boxes], -1))


def test_delegates_that_an_index_keeps_apart(tmp_path):
    """Scores and boxes are one delegate, though torch puts a view of the index, which is left out, beside the boxes."""
    torch.manual_seed(0)
    exported = export(_Chosen(), torch.randn(1, 84, 32))
    report = optimize(exported, tmp_path / "model.pte", Options(baseline=BaselineChoice.NONE)).report
    assert report.delegation.subgraphs == 2
    assert worst_error(exported, tmp_path / "model.pte", [(torch.randn(1, 84, 32),)]) < 1e-5


class _End(nn.Module):
    """A row of a text at the place of its largest word, as CLIP's text tower ends."""

    def __init__(self):
        super().__init__()
        self.table, self.first, self.last = nn.Embedding(50, 32), nn.Linear(32, 32), nn.Linear(32, 8)

    def forward(self, tokens):
        rows = self.first(self.table(tokens)).tanh()
        return self.last(rows[torch.arange(rows.shape[0]), tokens.argmax(-1)])


@pytest.mark.parametrize("dynamic", [None, {0: Dim("n", max=4)}, {0: Dim("n", max=4), 1: Dim("s", max=16)}])
def test_ends_of_texts(dynamic, tmp_path):
    """Rows that two indices name are taken on the GPU, by one index."""
    exported = export(_End(), torch.randint(0, 50, (2, 7)), dynamic=(dynamic,) if dynamic else None)
    report = optimize(exported, tmp_path / "model.pte", Options(baseline=BaselineChoice.NONE)).report
    assert report.delegation.subgraphs == 1
    tokens = [(torch.randint(0, 50, (2, 9 if dynamic and 1 in dynamic else 7)),)]
    assert worst_error(exported, tmp_path / "model.pte", tokens) < 1e-5


def test_one_delegate(tmp_path):
    """Each kind by itself, of one to four images."""
    torch.manual_seed(0)
    for name, use in KINDS.items():
        exported = export(_Between(use), torch.randn(2, 3, 13, 12), dynamic=({0: Dim("n", max=4)},))
        made = optimize(
            exported, tmp_path / "model.pte", Options(baseline=BaselineChoice.NONE)
        ).report.delegation
        assert (made.subgraphs, made.crossings, [*made.cpu]) == (1, 2, []), name
        images = [(torch.randn(n, 3, 13, 12),) for n in (1, 3)]
        assert worst_error(exported, tmp_path / "model.pte", images) < 1e-5, name
