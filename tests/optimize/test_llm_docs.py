"""docs/llm.md: its code, run on a small model."""

import json
import re
from pathlib import Path

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
    example, own = _blocks()
    exec(example, {})  # noqa: S102 - the page's code
    delegation = measure(read_pte(Path("model.pte"))).delegation
    assert (delegation.subgraphs, delegation.crossings) == (1, 5)
    assert "not read back" in Path("report.md").read_text("utf-8")
    Path("model.pte").unlink()
    given = {"model": quantize(LanguageModel(), nn.Embedding).eval(), "example": (indices(1, 4),)}
    exec(own, given)  # noqa: S102 - the page's code
    assert measure(read_pte(Path("model.pte"))).delegation.subgraphs == 1
