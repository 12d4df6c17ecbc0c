"""A linear as PT2E's quantizers write it: scales of channels, its activations floats or 8 bits by one scale."""

import torch
from torch import nn
from torch.nn import functional


class LinearByChannel(nn.Module):
    """`bits` of a weight [rows, columns]; `static` with activations quantized before and after it."""

    def __init__(self, rows: int, columns: int, *, bits: int = 8, static: bool = False) -> None:
        super().__init__()
        self.limit, self.static = 2 ** (bits - 1) - 1, static
        self.register_buffer(
            "weight", torch.randint(-self.limit, self.limit + 1, (rows, columns), dtype=torch.int8)
        )
        self.register_buffer("scales", torch.rand(rows) / self.limit)
        self.register_buffer("zeros", torch.zeros(rows, dtype=torch.int64))
        self.bias = nn.Parameter(torch.rand(rows))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product, of float32 [..., columns]."""
        least = -self.limit - (self.limit == 7)
        given = (self.weight, self.scales, self.zeros, 0, least, self.limit, torch.int8)
        weight = torch.ops.quantized_decomposed.dequantize_per_channel(*given)
        return self._rounded(functional.linear(self._rounded(x, 0.03), weight, self.bias), 0.2)

    def _rounded(self, x: torch.Tensor, scale: float) -> torch.Tensor:
        if not self.static:
            return x
        parameters = (scale, 3, -128, 127, torch.int8)
        quantized = torch.ops.quantized_decomposed.quantize_per_tensor(x, *parameters)
        return torch.ops.quantized_decomposed.dequantize_per_tensor(quantized, *parameters)
