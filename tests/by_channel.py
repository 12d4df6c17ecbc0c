"""Linears and convolutions as PT2E writes them: scales of channels, activations floats or 8 bits by one scale."""

import torch
from torch import nn
from torch.nn import functional


class ByChannel(nn.Module):
    """`bits` of a weight of `sizes`; `static` with activations quantized before and after it."""

    def __init__(self, *sizes: int, bits: int = 8, static: bool = False) -> None:
        super().__init__()
        self.limit, self.static = 2 ** (bits - 1) - 1, static
        self.register_buffer("weight", torch.randint(-self.limit, self.limit + 1, sizes, dtype=torch.int8))
        self.register_buffer("scales", torch.rand(sizes[0]) / self.limit)
        self.register_buffer("zeros", torch.zeros(sizes[0], dtype=torch.int64))
        self.bias = nn.Parameter(torch.rand(sizes[0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product of float32 [..., columns], or the convolution of [batch, channels, height, width]."""
        least = -self.limit - (self.limit == 7)
        given = (self.weight, self.scales, self.zeros, 0, least, self.limit, torch.int8)
        weight = torch.ops.quantized_decomposed.dequantize_per_channel(*given)
        run = functional.linear if weight.dim() == 2 else functional.conv2d
        return self._rounded(run(self._rounded(x, 0.03), weight, self.bias), 0.2)

    def _rounded(self, x: torch.Tensor, scale: float) -> torch.Tensor:
        if not self.static:
            return x
        parameters = (scale, 3, -128, 127, torch.int8)
        quantized = torch.ops.quantized_decomposed.quantize_per_tensor(x, *parameters)
        return torch.ops.quantized_decomposed.dequantize_per_tensor(quantized, *parameters)
