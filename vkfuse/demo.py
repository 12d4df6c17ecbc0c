"""A realistic decoder, quantized by torchao, as a .pt2 to try vkfuse on.

Llama's shape at a small scale: grouped-query attention, RMSNorm, rotary embedding, gated MLP, and a head tied to a
32,000 x 640 embedding; batch 2 with a dynamic sequence. Weights are random, sizes are real.
"""

from dataclasses import dataclass
from typing import IO

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from torchao.quantization import Int8DynamicActivationIntxWeightConfig, IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerGroup

from vkfuse.quiet import quiet


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """Sizes of the demo decoder."""

    vocabulary: int = 32000
    width: int = 640
    heads: int = 10
    key_heads: int = 2
    hidden: int = 1728
    layers: int = 2
    batch: int = 2
    longest: int = 64
    group_size: int = 32

    @property
    def head_size(self) -> int:
        """Columns of one attention head."""
        return self.width // self.heads


class _Attention(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        size = config.head_size
        self.query = nn.Linear(config.width, config.heads * size, bias=False)
        self.key = nn.Linear(config.width, config.key_heads * size, bias=False)
        self.value = nn.Linear(config.width, config.key_heads * size, bias=False)
        self.out = nn.Linear(config.heads * size, config.width, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape

        def heads(y: torch.Tensor) -> torch.Tensor:
            return y.view(batch, length, -1, self.config.head_size).transpose(1, 2)

        query, key = (_rotate(heads(p(x)), cos, sin) for p in (self.query, self.key))
        attended = F.scaled_dot_product_attention(
            query, key, heads(self.value(x)), is_causal=True, enable_gqa=True
        )
        return self.out(attended.transpose(1, 2).reshape(batch, length, -1))  # type: ignore[no-any-return]


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding, https://arxiv.org/abs/2104.09864, halves rotated as Llama does."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class _Layer(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width)
        self.attention = _Attention(config)
        self.mlp_norm = nn.RMSNorm(config.width)
        self.gate = nn.Linear(config.width, config.hidden, bias=False)
        self.up = nn.Linear(config.width, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin)
        y = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Token ids int64 [batch, length] -> logits float32 [batch, length, vocabulary]."""

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.head.weight = self.embedding.weight
        angles = torch.outer(
            torch.arange(config.longest),
            10000.0 ** (-torch.arange(0, config.head_size, 2) / config.head_size),
        )
        self.register_buffer("cos", torch.cat((angles, angles), dim=-1).cos())
        self.register_buffer("sin", torch.cat((angles, angles), dim=-1).sin())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits for each token's successor."""
        length = tokens.shape[1]
        cos, sin = self.cos[:length], self.sin[:length]
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


def quantized_decoder(config: DecoderConfig) -> torch.export.ExportedProgram:
    """The decoder with a 4-bit embedding and 4-bit linears on dynamic int8 activations, exported."""
    torch.manual_seed(0)
    model = Decoder(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02)
    group, int4 = PerGroup(config.group_size), torch.int4  # type: ignore[attr-defined]
    lookup = IntxWeightOnlyConfig(weight_dtype=int4, granularity=group)
    linear = Int8DynamicActivationIntxWeightConfig(weight_dtype=int4, weight_granularity=group)
    quantize_(model, lookup, lambda module, _name: isinstance(module, nn.Embedding))
    quantize_(model, linear, lambda module, _name: isinstance(module, nn.Linear))
    tokens = torch.randint(0, config.vocabulary, (config.batch, config.longest // 4))
    length = torch.export.Dim("length", min=1, max=config.longest)
    return torch.export.export(model, (tokens,), dynamic_shapes=({1: length},))


def write_demo(stream: IO[bytes], config: DecoderConfig | None = None) -> None:
    """Write the demo decoder as a .pt2."""
    with quiet():
        torch.export.save(quantized_decoder(config or DecoderConfig()), stream)
