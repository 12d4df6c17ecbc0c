"""docs/llm.md: its code, run on a small model."""

import json
import re
from pathlib import Path

import pytest
import torch
from executorch.examples.models.llama.llama_transformer import construct_transformer
from executorch.examples.models.llama.model_args import ModelArgs
from programs import LanguageModel, indices, quantize
from torch import nn

from vkfuse.pte import read_pte
from vkfuse.report.build import measure

SHAPE = {"dim": 64, "n_layers": 1, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 256, "hidden_dim": 64}
PAGE = Path(__file__).parents[2] / "docs" / "llm.md"


def _blocks():
    """The page's code: ExecuTorch's example, optimum-executorch, one's own script."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)


def _checkpoint(folder):
    torch.manual_seed(0)
    model = construct_transformer(ModelArgs(**SHAPE))
    named = {k: v for k, v in model.state_dict().items() if "freqs" not in k and "mask" not in k}
    torch.save(
        {k: torch.randn_like(v) * 0.1 if v.ndim > 1 else torch.ones_like(v) for k, v in named.items()},
        folder / "model.pth",
    )
    (folder / "params.json").write_text(
        json.dumps({**SHAPE, "multiple_of": 32, "norm_eps": 1e-5, "rope_theta": 1e4})
    )


def test_code_of_the_page(tmp_path, monkeypatch):
    """ExecuTorch's example gives one delegate and its report; a script of one's own gives a file."""
    monkeypatch.chdir(tmp_path)
    _checkpoint(tmp_path)
    example, _optimum, own = _blocks()
    exec(example, {})  # noqa: S102 - the page's code
    delegation = measure(read_pte(Path("model.pte"))).delegation
    assert (delegation.subgraphs, delegation.crossings) == (1, 5)
    report = Path("report.md").read_text("utf-8")
    assert "not read back" in report
    assert re.search(r"Crossings *\| *5 ", report)
    Path("model.pte").unlink()
    given = {"model": quantize(LanguageModel(), nn.Embedding).eval(), "example": (indices(1, 4),)}
    exec(own, given)  # noqa: S102 - the page's code
    assert measure(read_pte(Path("model.pte"))).delegation.subgraphs == 1


def test_code_for_optimum(tmp_path, monkeypatch):
    """optimum-executorch, where it is installed (its pins are not those of these tests), makes one delegate of a Llama."""
    pytest.importorskip("optimum.exporters.executorch")
    import transformers  # noqa: PLC0415 - it is not asked for elsewhere here

    monkeypatch.chdir(tmp_path)
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(vocab_size=256, num_hidden_layers=1, tie_word_embeddings=True, **shape)
    transformers.LlamaForCausalLM(config).save_pretrained("model")
    exec(_blocks()[1], {})  # noqa: S102 - the page's code
    delegation = measure(read_pte(Path("out/model.pte"))).delegation
    assert (delegation.subgraphs, delegation.crossings) == (1, 6)
    assert re.search(r"Crossings *\| *6 ", Path("report.md").read_text("utf-8"))
