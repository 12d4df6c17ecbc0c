"""Convolutions with 8-bit weights, and activations of 8 bits that are quantized by numbers, as PT2E's convert leaves them.

Each file was run on the 1.5.0 runtime (main of 2026-08-22, Mesa lavapipe) and was right there.
"""

import torch
from programs import export
from torch import nn
from torch.export import ExportedProgram
from torch.nn import functional
from upstream_row import Row, Table

from vkfuse.runtime.codes import Code

decomposed = torch.ops.quantized_decomposed
SUMS = 1e-5  # products summed in another order
ROUNDED = 2e-2  # an activation that rounds to its neighbour, of 256 steps
BYTES = Table(rung="q8", reason="")


class _Weight(nn.Module):
    """A weight of 8 bits with a scale for each output, of any rank; `points` are zero points."""

    def __init__(self, *shape: int, points: int = 0) -> None:
        super().__init__()
        self.register_buffer("values", torch.randint(-127, 120, shape, dtype=torch.int8))
        self.register_buffer("scales", torch.rand(shape[0]) * 0.01 + 0.001)
        self.register_buffer("points", torch.full((shape[0],), points))

    def forward(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        args = (self.values, self.scales, self.points, 0, -128, 127, torch.int8)
        return decomposed.dequantize_per_channel(*args, out_dtype=dtype)


def _quantized(x: torch.Tensor, scale: float, zero: int) -> torch.Tensor:
    numbers = (scale, zero, -128, 127, torch.int8)
    return decomposed.dequantize_per_tensor(decomposed.quantize_per_tensor(x, *numbers), *numbers)


class _Images(nn.Module):
    """One convolution of each kind, all of one image, or sequence."""

    def __init__(self) -> None:
        super().__init__()
        shapes = {
            "strided": (16, 8, 3, 3),
            "point": (10, 8, 1, 1),
            "groups": (16, 2, 3, 3),
            "same": (12, 8, 5, 3),
        }
        others = {"rows": (12, 8, 3), "across": (8, 4, 3, 3), "deep": (8, 1, 3, 3)}
        self.of = nn.ModuleDict({name: _Weight(*shape) for name, shape in {**shapes, **others}.items()})
        self.of["shifted"], self.bias = _Weight(8, 8, 3, 3, points=-7), nn.Parameter(torch.randn(16))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        conv, of = functional.conv2d, self.of
        return (
            conv(image, of["strided"](), self.bias, stride=(2, 1), padding=(1, 2)),
            conv(image, of["point"](), self.bias[:10]),
            conv(image, of["groups"](), groups=4, dilation=2),
            conv(image, of["same"](), padding="same"),
            functional.conv1d(image[:, :, 0], of["rows"](), padding=1),
            conv(image, of["shifted"]()),
            functional.conv_transpose2d(image, of["across"]()),
            conv(image, of["deep"](), groups=8, padding=1),
        )


def _images() -> ExportedProgram:
    return export(_Images(), torch.randn(1, 8, 9, 11))


class _Net(nn.Module):
    """A small network whose activations are of 8 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = _Weight(16, 3, 3, 3), _Weight(24, 16, 1, 1), _Weight(10, 24)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = _quantized(image, 0.03, 3)
        x = functional.relu(functional.conv2d(x, self.first(), stride=2, padding=1))
        x = functional.relu(functional.conv2d(_quantized(x, 0.02, -128), self.second()))
        x = _quantized(x, 0.03, -128).mean((2, 3))
        return _quantized(functional.linear(_quantized(x, 0.02, -128), self.head()), 0.05, 1)


class _One(nn.Module):
    """A convolution by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = _Weight(8, 8, 3, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(images, self.weight(images.dtype), padding=1)


def _folded(reason: str) -> Table:
    return Table(rung="folded", reason=reason)


ROWS = (
    Row(
        name="8-bit convolutions",
        build=_images,
        tables=(
            BYTES,
            BYTES,
            Table(rung="q8", how=("zero-points-folded",)),
            BYTES,
            BYTES,
            _folded("consumer-not-fused"),
            Table(rung="q8", how=("rows-padded",)),
            _folded(Code.CONVOLUTION_GROUPS),
        ),
        bound=SUMS,
    ),
    Row(
        name="8-bit convolutions on 8-bit activations",
        build=lambda: export(_Net(), torch.randn(1, 3, 16, 16)),
        tables=(BYTES, BYTES, Table(rung="q8", how=("rows-padded",), reason="more-than-4-bits")),
        bound=ROUNDED,
        repairs=("activations-in-floats",),
    ),
    Row(
        name="8-bit convolution in half precision",
        build=lambda: export(_One(), torch.randn(1, 8, 9, 9).half()),
        tables=(BYTES,),
        bound=2e-3,
    ),
    Row(
        name="8-bit convolution of a batch",
        build=lambda: export(_One(), torch.randn(2, 8, 9, 9)),
        tables=(_folded(Code.CONVOLUTION_BATCHED),),
        bound=SUMS,
    ),
)
