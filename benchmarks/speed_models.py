"""Exports the programs of benchmarks/speed.py.

python benchmarks/speed_models.py minilm|demo|tied-table MODEL.pt2
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram
from torchao.quantization import IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerGroup

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "optimize")]

from real_models import encoder  # noqa: E402 - from the tests' own folders

from vkfuse.demo import DecoderConfig, quantized_decoder  # noqa: E402 - likewise
from vkfuse.lower.quiet import quiet  # noqa: E402 - likewise


class Tied(nn.Module):
    """A lookup and a head over one table [128256, 2048]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(128256, 2048)
        self.head = nn.Linear(2048, 128256, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token ids [batch, length] -> logits [batch, length, 128256]."""
        return self.head(self.embedding(tokens))


def tied_table() -> ExportedProgram:
    """The tied table, quantized in groups of 32 and tied afterwards, as language models do."""
    torch.manual_seed(0)
    model = Tied().eval()
    config = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))
    quantize_(model, config, lambda module, _name: isinstance(module, nn.Embedding))
    model.head.weight = model.embedding.weight
    return torch.export.export(model, (torch.randint(0, 128256, (1, 16)),))


MODELS: dict[str, Callable[[], ExportedProgram]] = {
    "minilm": lambda: encoder(batch=1, linears=True, length=64),
    "demo": lambda: quantized_decoder(DecoderConfig()),
    "tied-table": tied_table,
}

if __name__ == "__main__":
    with quiet():
        torch.export.save(MODELS[sys.argv[1]](), sys.argv[2])
