"""Settings of the zoo's models, and the exported program of each."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from architectures import ARCHITECTURES, HIDDEN, VOCABULARY, Architecture, Causal, Decoder, Encoder
from programs import quantize, quantize_dynamic
from torch import nn
from torch.export import Dim, ExportedProgram
from torchao.quantization import IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerGroup

Weights = Literal["embedding", "int4", "8da4w"]
Length = Literal["static", "dynamic", "cache"]
GROUP = 32
CACHED = 32  # positions of a static cache
STATES = 24  # positions of an encoder's output


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a model is quantized and called; "cache" is one token a call with a static cache of keys and values."""

    architecture: Architecture
    weights: Weights
    length: Length
    batch: int
    attention: str = "sdpa"

    @property
    def name(self) -> str:
        return f"{self.architecture.name}-{self.weights}-{self.length}-{self.attention}-b{self.batch}"


def build(setting: Setting) -> ExportedProgram:
    """The exported program; random weights depend on nothing but the setting."""
    torch.manual_seed(0)
    model = setting.architecture.build(setting.attention).eval()
    if not setting.architecture.published:
        _enlarge(model)
    _quantize_embeddings(model)
    if setting.weights == "int4":
        quantize(model, nn.Linear)
    elif setting.weights == "8da4w":
        quantize_dynamic(model)
    module, inputs, lengths = _call(model, setting)
    dynamic = None if setting.length != "dynamic" else tuple(_dynamic(inputs, lengths))
    strict = (
        setting.length == "cache"
    )  # transformers' way: the cache is no module, only tracing finds its buffers
    with torch.no_grad():
        return torch.export.export(module.eval(), inputs, dynamic_shapes=dynamic, strict=strict)


def _enlarge(model: nn.Module) -> None:
    """Initial weights are too small to tell one model from another."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)


def _quantize_embeddings(model: nn.Module) -> None:
    """Every table in int4 group 32 that torchao takes."""
    config = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(GROUP))
    quantize_(model, config, lambda part, _: isinstance(part, nn.Embedding) and _is_lookup(part))


def _is_lookup(table: nn.Embedding) -> bool:
    """Neither a relative position bias, of a column a head, nor Whisper's positions, which index the weight itself."""
    return table.embedding_dim >= GROUP and type(table).__name__ != "WhisperPositionalEmbedding"


def _dynamic(inputs: tuple[torch.Tensor, ...], count: int) -> Any:
    length = Dim("length", min=2, max=32)
    return ({1: length} if at < count else None for at, _ in enumerate(inputs))


def _call(model: nn.Module, setting: Setting) -> tuple[nn.Module, tuple[torch.Tensor, ...], int]:
    """The module to export, its inputs, and how many of these have a dynamic length."""
    tokens = torch.randint(3, VOCABULARY, (setting.batch, setting.architecture.columns or 12))
    if setting.length == "cache":
        return _cached(model, setting.batch), (tokens[:, :1], torch.tensor([5])), 0
    match setting.architecture.family:
        case "encoder" | "sentence" as family:
            mask = torch.ones_like(tokens)
            mask[-1, 8:] = 0
            return Encoder(model) if family == "encoder" else model, (tokens, mask), 2
        case "causal":
            return Causal(model), (tokens,), 1
        case "decoder":
            return Decoder(model), (tokens, torch.randn(setting.batch, STATES, HIDDEN)), 1
        case _:
            return model, (tokens,), 0


class _Cached(nn.Module):
    """A token int64 [batch, 1] and its position int64 [1] -> logits; keys and values are kept in buffers."""

    def __init__(self, model: nn.Module, batch: int) -> None:
        super().__init__()
        from transformers.integrations.executorch import TorchExportableModuleWithStaticCache  # noqa: PLC0415 - seconds

        self.step = TorchExportableModuleWithStaticCache(model, batch_size=batch, max_cache_len=CACHED)

    def forward(self, token: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        return self.step(input_ids=token, cache_position=position)


def _cached(model: Any, batch: int) -> nn.Module:
    model.generation_config.use_cache = True
    model.generation_config.cache_implementation = "static"
    return _Cached(model, batch)


def settings() -> tuple[Setting, ...]:
    """Every architecture in three settings or more, such that each value of each choice meets each architecture."""
    return tuple(s for at, a in enumerate(ARCHITECTURES) for s in _settings(a, at))


def _settings(architecture: Architecture, at: int) -> Iterator[Setting]:
    weights = _turned(("embedding", "int4", "8da4w"), at) if architecture.linears else 3 * ("embedding",)
    one, other = _turned(architecture.attentions, at)
    last: Length = "dynamic" if architecture.dynamic else "static"
    make = partial(Setting, architecture=architecture)
    yield make(weights=weights[0], length="static", batch=1, attention=one)
    yield make(weights=weights[1], length="static", batch=2, attention=other)
    yield make(weights=weights[2], length=last, batch=1 + at % 2, attention=one)
    if architecture.family == "causal" and architecture.cached:
        yield make(weights=weights[1], length="cache", batch=1, attention=one)


def _turned(values: tuple[Any, ...], by: int) -> tuple[Any, ...]:
    """`values` beginning at another one."""
    first = by % len(values)
    return values[first:] + values[:first]
