"""Programs with one quantized table each, over all that a table can differ in; a number says which.

A program's choices are drawn from its number, so that one number is one program everywhere. Each has an embedding,
and half of them a head of the embedding's shape: quantized by itself, or one tensor with it.
"""

import random
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torchao.quantization import IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerAxis, PerGroup
from torchao.quantization.quant_primitives import MappingType
from torchao.utils import unwrap_tensor_subclass

AXES: Final[Mapping[str, tuple[Any, ...]]] = {
    "bits": (1, 2, 3, 4, 4, 4, 4, 5, 6, 7, 8, 8),
    "group": (0, 0, 32, 32, 16, 12, 8, 6, 64),
    "mapping": ("symmetric", "symmetric", "asymmetric"),
    "scales": ("float32", "float16", "bfloat16"),
    "model": ("float32", "float32", "float16", "bfloat16"),
    "columns": (64, 128, 48, 96, 192),
    "rows": (100, 127, 256),
    "indices": ((7,), (2, 7), (2, 3, 4), (1, 1)),
    "index": ("int64", "int32"),
    "head": ("none", "none", "tied", "beside"),
    "unwrapped": (False, False, True),
    "strict": (False, False, True),
    "dynamic": (False, True),
    "decomposed": (False, False, True),
}


def choices(number: int) -> dict[str, Any]:
    """What the program of a number is: one value of each axis; groups divide the columns."""
    rng = random.Random(number)  # noqa: S311 - the same program for a number, everywhere
    drawn = {axis: rng.choice(values) for axis, values in AXES.items()}
    fitting = [size for size in AXES["columns"] if not drawn["group"] or size % drawn["group"] == 0]
    return drawn | {"columns": rng.choice(fitting)}


class _Model(nn.Module):
    def __init__(self, of: Mapping[str, Any]) -> None:
        super().__init__()
        self.table = nn.Embedding(of["rows"], of["columns"])
        self.head = None if of["head"] == "none" else nn.Linear(of["columns"], of["rows"], bias=False)
        if of["head"] == "tied":
            self.head.weight = self.table.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        looked_up = self.table(tokens)
        return looked_up * 2 if self.head is None else self.head(looked_up)


def program(number: int) -> ExportedProgram:
    """The exported program of a number."""
    of = choices(number)
    torch.manual_seed(number)
    module = _Model(of).to(getattr(torch, of["model"])).eval()
    config = IntxWeightOnlyConfig(
        weight_dtype=getattr(torch, f"int{of['bits']}"),
        granularity=PerGroup(of["group"]) if of["group"] else PerAxis(0),
        mapping_type=MappingType[of["mapping"].upper()],
        scale_dtype=getattr(torch, of["scales"]),
    )
    for kind in (nn.Embedding, nn.Linear):
        quantize_(module, config, lambda part, _name, kind=kind: isinstance(part, kind))
    if of["head"] == "tied":
        module.head.weight = module.table.weight
    if of["unwrapped"]:
        unwrap_tensor_subclass(module)
    exported = torch.export.export(
        module, (tokens(number),), dynamic_shapes=_dynamic(of), strict=of["strict"]
    )
    return exported.run_decompositions() if of["decomposed"] else exported


def tokens(number: int, seed: int = 0) -> torch.Tensor:
    """Indices for a program; both ends of the table are among them."""
    of = choices(number)
    generator = torch.Generator().manual_seed(1000 * number + seed)
    drawn = torch.randint(of["rows"], of["indices"], generator=generator, dtype=getattr(torch, of["index"]))
    drawn.view(-1)[0], drawn.view(-1)[-1] = 0, of["rows"] - 1
    return drawn


def _dynamic(of: Mapping[str, Any]) -> Any:
    if not of["dynamic"] or of["indices"][-1] == 1:
        return None
    last = len(of["indices"]) - 1
    return ({last: Dim("length", min=1, max=16)},)
