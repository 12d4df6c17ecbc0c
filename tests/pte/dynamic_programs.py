"""Programs of one operator each, of dynamic sizes, and what the runtime does with the files that ExecuTorch makes of them.

`VERDICTS` were recorded on ExecuTorch's own Vulkan runtime (1.5.0, on a software driver), one loaded method called at a
middle, the shortest, the longest and the middle length again: the code that says why it is wrong or fails, empty where all
four are right. `told` is of what a file leaves open: it is right, or wrong, by which of its sizes vary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from by_channel import ByChannel
from torch import nn
from torch.export import Dim, ExportedProgram, export
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`run` gets `layers` and inputs of `shape`, of which `dynamic` axes vary from `least` on, and of `more` shapes."""

    name: str
    run: Callable[..., object]
    shape: tuple[int, ...]
    dynamic: tuple[int, ...]
    layers: tuple[nn.Module, ...] = ()
    wrong: str = ""
    told: str = ""
    rows: int = 0
    least: int = 2
    more: tuple[tuple[tuple[int, ...], tuple[int, ...], int], ...] = ()


class Program(nn.Module):
    """One function of layers and inputs."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.run, self.layers = case.run, nn.ModuleList(case.layers)

    def forward(self, *inputs):
        return self.run(*self.layers, *inputs)


def program_of(case: Case) -> ExportedProgram:
    """Export a case at a middle length."""
    torch.manual_seed(0)
    inputs, dims = [], []
    for shape, dynamic, rows in ((case.shape, case.dynamic, case.rows), *case.more):
        sizes = [max(case.least, size // 2 - 1) if at in dynamic else size for at, size in enumerate(shape)]
        inputs.append(torch.randint(rows, sizes) if rows else torch.randn(sizes))
        dims.append({at: Dim(f"d{at}_{shape[at]}", min=case.least, max=shape[at]) for at in dynamic})
    with torch.no_grad():
        return export(Program(case).eval(), tuple(inputs), dynamic_shapes=(tuple(dims),), strict=False)


def _case(name, run, shape, *dynamic, **facts) -> Case:
    return Case(name=name, run=run, shape=shape, dynamic=dynamic, **facts)


_ROWS, _THREE, _IMAGE = (24, 32), (2, 24, 32), (1, 4, 24, 24)
_PICKED = torch.tensor([2, 0, 1])
VERDICTS = (
    _case("add a row", lambda x: x + torch.arange(32.0), (4, 24, 32), 0, 1),
    _case("linear", lambda of, x: of(x), (6, 24, 32), 0, layers=(nn.Linear(32, 16),)),
    _case("layer norm", lambda of, x: of(x), (1, 24, 32), 1, layers=(nn.LayerNorm(32),)),
    _case("attention", lambda x: (x @ x.transpose(1, 2)).softmax(-1) @ x, _THREE, 1),
    _case("embedding", lambda of, x: of(x), (1, 24), 1, rows=50, layers=(nn.Embedding(50, 32),)),
    _case("gather", lambda x, i: x.gather(1, i), (24, 8), 0, more=(((24, 4), (0,), 8),)),
    _case("flip", lambda x: x.flip(1), _THREE, 1),
    _case("repeat", lambda x: x.repeat(1, 2, 1), (2, 12, 32), 1),
    _case("repeat_interleave", lambda x: x.repeat_interleave(2, 1), (2, 12, 32), 1),
    _case("expand", lambda x: x.unsqueeze(1).expand(-1, 4, -1) * 2.0, _ROWS, 0),
    _case("expand to", lambda x: torch.arange(32.0)[None].expand(x.shape[0], -1) * x, _ROWS, 0),
    _case("cat", lambda x: torch.cat([x, x * 2], 1), (2, 12, 32), 1),
    _case("slice", lambda x: x[:, 1:] + 1, _THREE, 1, least=3),
    _case("select", lambda x: x[:, -1] * 2, _THREE, 1),
    _case("heads", lambda x: (x * 2).view(x.shape[0], x.shape[1], 4, 8) + 1, _THREE, 1),
    _case("flatten", lambda x: (x * 2).flatten(0, 1) + 1, _THREE, 1),
    _case("sum", lambda x: x.sum(1, keepdim=True), _THREE, 1),
    _case("mean of an image", lambda x: x.mean((2, 3)), (1, 4, 12, 12), 2, 3),
    _case("pad", lambda x: functional.pad(x, (0, 0, 1, 1)), _THREE, 1),
    _case("conv1d", lambda of, x: of(x), (1, 8, 24), 2, layers=(nn.Conv1d(8, 16, 3),), least=4),
    _case("conv2d", lambda of, x: of(x), _IMAGE, 2, 3, layers=(nn.Conv2d(4, 8, 3, padding=1),)),
    _case("transposed", lambda of, x: of(x), (1, 4, 12, 12), 2, 3, layers=(nn.ConvTranspose2d(4, 8, 3, 2),)),
    _case("nearest", lambda x: functional.interpolate(x, scale_factor=2.0), (1, 4, 12, 12), 2),
    _case(
        "bilinear", lambda x: functional.interpolate(x, scale_factor=2.0, mode="bilinear"), (4, 4, 8, 8), 0
    ),
    _case("pixel shuffle", lambda x: functional.pixel_shuffle(x, 2), (1, 8, 12, 12), 2),
    _case("batch norm", lambda of, x: of(x), (4, 8, 6, 6), 0, layers=(nn.BatchNorm2d(8),)),
    # Right, by which of the sizes varies.
    _case(
        "padded conv1d of a batch",
        lambda of, x: of(x),
        (5, 8, 24),
        0,
        layers=(nn.Conv1d(8, 16, 3, padding=1),),
        told="padding-lost",
    ),
    _case("group norm", lambda of, x: of(x), (1, 8, 12, 12), 2, layers=(nn.GroupNorm(2, 8),)),
    _case(
        "groups of images",
        lambda of, x: of(x),
        (3, 8, 12, 12),
        2,
        layers=(nn.GroupNorm(2, 8),),
        told="no-resize",
    ),
    _case("bytes, rows in fours", lambda of, x: of(x * 2), (16, 64), 0, layers=(ByChannel(1024, 64),)),
    _case(
        "bytes, tiles in one workgroup",
        lambda of, x: of(x * 2),
        (15, 64),
        0,
        layers=(ByChannel(32, 64),),
    ),
    # Wrong, or fails.
    _case(
        "bytes, rows in threes",
        lambda of, x: of(x * 2),
        (15, 64),
        0,
        layers=(ByChannel(1024, 64),),
        wrong="rows-left-out",
    ),
    _case(
        "group norm of a batch",
        lambda of, x: of(x),
        (4, 8, 6, 6),
        0,
        layers=(nn.GroupNorm(2, 8),),
        wrong="no-resize",
    ),
    _case(
        "rows by index",
        lambda x, i: x.index_select(0, i),
        (10, 32),
        more=(((24,), (0,), 10),),
        wrong="no-resize",
    ),
    _case("columns by index", lambda x: x.index_select(1, _PICKED), (24, 8), 0, wrong="no-resize"),
    _case("matrices by index", lambda x: x.index_select(0, _PICKED), (8, 24, 16), 1, wrong="no-resize"),
    _case("split", lambda x: torch.split(x, [8, 24], 1), (12, 32), 0, wrong="no-resize"),
    _case("chunk", lambda x: torch.chunk(x * 1.5, 2, -1), (2, 12, 32), 1, wrong="no-resize"),
    _case("squeeze in front", lambda x: x.squeeze(0), (1, 24, 32), 1, wrong="no-resize"),
    _case(
        "padded conv1d",
        lambda of, x: of(x),
        (1, 8, 24),
        2,
        layers=(nn.Conv1d(8, 16, 3, padding=1),),
        wrong="padding-lost",
    ),
    _case(
        "depthwise with a stride",
        lambda of, x: of(x),
        (1, 8, 24, 24),
        2,
        3,
        layers=(nn.Conv2d(8, 8, 3, 2, 1, groups=8),),
        least=4,
        wrong="padding-lost",
    ),
    _case(
        "lookup by channels",
        lambda of, x: of(x).flip(2),
        (3, 8),
        1,
        rows=100,
        layers=(nn.Embedding(100, 3),),
        wrong="no-resize",
    ),
    _case(
        "aligned corners",
        lambda x: functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True),
        (1, 1, 16, 5),
        2,
        wrong="no-resize",
    ),
    _case("masked", lambda x: x.masked_fill(torch.arange(32) > 7, -1.0), _THREE, 1, wrong="condition-rank"),
)
