"""Makes the programs of benchmarks/speed.py.

python benchmarks/speed_models.py minilm|demo|tied-table MODEL.pt2
python benchmarks/speed_models.py exchanged OTHER.pt2 MODEL.pt2
"""

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch._export.serde.schema import ScalarType
from torch.export import ExportedProgram
from torchao.quantization import IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerGroup

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "optimize")]

from real_models import encoder  # noqa: E402 - from the tests' own folders

from vkfuse.demo import DecoderConfig, quantized_decoder  # noqa: E402 - likewise
from vkfuse.quiet import quiet  # noqa: E402 - likewise


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


def plain_weights(archive: zipfile.ZipFile) -> dict[str, type]:
    """Members that are the bytes of a weight, and no state of a call's, with their types."""
    types = {
        int(serialized): of for serialized, of in ((ScalarType.CHAR, np.int8), (ScalarType.FLOAT, np.float32))
    }
    found = {}
    for name in archive.namelist():
        if name.endswith("model_weights_config.json"):
            for weight, payload in json.loads(archive.read(name))["config"].items():
                kind = types.get(payload["tensor_meta"]["dtype"])
                if kind and not payload["use_pickle"] and "cache" not in weight:
                    found[f"{name.rpartition('/')[0]}/{payload['path_name']}"] = kind
    return found


def exchanged(source: str, target: str) -> None:
    """Write a .pt2 with the numbers of its plain weights back to front; none where all are pickled."""
    with zipfile.ZipFile(source) as archive:
        weights = plain_weights(archive)
        if not weights:
            return
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as other:
            for member in archive.infolist():
                data = archive.read(member)
                if member.filename in weights:
                    data = np.frombuffer(data, weights[member.filename])[::-1].tobytes()
                other.writestr(aligned(member.filename, other), data)


def aligned(name: str, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """Return a member whose bytes begin at a multiple of 64, as torch has them."""
    member = zipfile.ZipInfo(name)
    begin = archive.fp.tell() + zipfile.sizeFileHeader + len(name.encode()) + 4
    padding = -begin % 64
    member.extra = b"FB" + padding.to_bytes(2, "little") + bytes(padding)
    return member


MODELS: dict[str, Callable[[], ExportedProgram]] = {
    "minilm": lambda: encoder(batch=1, linears=True, length=64),
    "demo": lambda: quantized_decoder(DecoderConfig()),
    "tied-table": tied_table,
}

if __name__ == "__main__":
    if sys.argv[1] == "exchanged":
        exchanged(sys.argv[3], sys.argv[2])
    else:
        with quiet():
            torch.export.save(MODELS[sys.argv[1]](), sys.argv[2])
