"""Lower a few tiny programs with stock ExecuTorch: `python build_files.py DIRECTORY` writes them there.

Run in its own process by tests/built.py, once for each version of this script and of the packages.
"""

import copy
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.backends.vulkan.serialization import vulkan_graph_schema as schema
from executorch.backends.vulkan.serialization.vulkan_graph_serialize import serialize_vulkan_graph
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.dialects._ops import ops as exir_ops
from executorch.exir.passes.init_mutable_pass import InitializedMutableBufferPass
from torch import nn
from torchao.quantization import IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerAxis, PerGroup

ROWS, COLUMNS = 64, 64
INDICES = torch.arange(5).reshape(1, 5)


class Lookup(nn.Module):
    """An embedding alone."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(ROWS, COLUMNS)

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        """Look up."""
        return self.emb(indices)


class Tied(nn.Module):
    """An embedding, a norm whose add stays on the CPU, and a quantized head: two delegates."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(ROWS, COLUMNS)
        self.norm = nn.RMSNorm(COLUMNS)
        self.head = nn.Linear(COLUMNS, ROWS, bias=False)

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        """Look up, normalize, project."""
        return self.head(self.norm(self.emb(indices)))


class Sorted(Lookup):
    """An operator that neither Vulkan nor the portable kernels have."""

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        """Look up and sort."""
        return torch.sort(self.emb(indices))[0].sum(-1)


class Mixed(nn.Module):
    """Every kind of value and instruction that a CPU program can hold, and a buffer with an initial state."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(12.0).reshape(3, 4))
        self.register_buffer("state", torch.arange(4.0))

    def forward(self, x: torch.Tensor, flag: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Branch, index, concatenate, count."""
        self.state.add_(1.5)
        y = torch.cond(flag, lambda a: a * 2.0, lambda a: a - 1.0, (x,))
        z = torch.cat([y, self.weight], 0)
        picked = z[torch.tensor([0, 2]), :]
        return nn.functional.gelu(picked, approximate="tanh") + self.state, x.reshape(-1)


def int4(model: nn.Module, *kinds: type[nn.Module]) -> nn.Module:
    """Quantize to int4 in groups of 32."""
    config = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))
    quantize_(model, config, lambda module, _: isinstance(module, kinds))
    return model


def int8(model: nn.Module) -> nn.Module:
    """Quantize embeddings to int8 by row, which stock delegates without a kernel."""
    config = IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))
    quantize_(model, config, lambda module, _: isinstance(module, nn.Embedding))
    return model


def save(
    directory: Path,
    name: str,
    model: nn.Module,
    arguments: tuple[torch.Tensor, ...],
    *,
    vulkan: bool = True,
    config: ExecutorchBackendConfig | None = None,
) -> None:
    """Export, lower and write `name`.pte, with its .ptd if it has one."""
    program = torch.export.export(model.eval(), arguments)
    edge = to_edge_transform_and_lower(program, partitioner=[VulkanPartitioner()] if vulkan else [])
    lowered = edge.to_executorch(config)
    lowered.save(str(directory / f"{name}.pte"))
    for data in lowered._tensor_data.values():
        (directory / f"{name}.ptd").write_bytes(bytes(data))


def on_grid(rows: int, columns: int, group: int = 32) -> nn.Embedding:
    """A table of floats that were 4-bit integers and a scale for each group before they were folded."""
    integers = torch.randint(-8, 8, (rows, columns // group, group)).float()
    scales = torch.rand(rows, columns // group, 1) * 0.1 + 0.01
    return nn.Embedding.from_pretrained((integers * scales).reshape(rows, columns))


class Step(nn.Module):
    """A lookup and a linear of its own, as a method of a file has them."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.emb = table
        self.head = nn.Linear(COLUMNS, 8)

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        """Look up, project."""
        return self.head(self.emb(indices))


def save_methods(directory: Path) -> None:
    """Write a file of two methods that share a table."""
    table = on_grid(ROWS, COLUMNS)
    programs = {
        name: torch.export.export(Step(table).eval(), (INDICES[:, :length],))
        for name, length in (("prefill", 5), ("decode", 1))
    }
    edge = to_edge_transform_and_lower(
        programs, partitioner={name: [VulkanPartitioner()] for name in programs}
    )
    edge.to_executorch().save(str(directory / "methods.pte"))


class Ranked(nn.Module):
    """A lookup of a batch, read by a linear on Vulkan and by an operator on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = on_grid(ROWS, COLUMNS)
        self.head = nn.Linear(COLUMNS, 8)

    def forward(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Look up, project, add up."""
        rows = self.emb(indices)
        return self.head(rows), torch.cumsum(rows, 1)


def save_kept_lookups(directory: Path) -> None:
    """Write files whose lookups stay on the CPU, in front of a Vulkan delegate, as before there was a fused one."""
    batch, length = torch.export.Dim("batch", max=3), torch.export.Dim("length", min=2, max=7)
    indices = torch.arange(10).reshape(2, 5)
    padded = nn.Sequential(on_grid(2 * ROWS, 40, 40), nn.Linear(40, 8), nn.ReLU())
    models = {
        "joined": (nn.Sequential(on_grid(ROWS, COLUMNS), nn.Linear(COLUMNS, 8)), INDICES, None),
        "padded": (padded, indices, ({0: batch, 1: length},)),
        "ranked": (Ranked(), indices, None),
    }
    kept = exir_ops.edge.aten.embedding.default
    for name, (model, example, dynamic) in models.items():
        program = torch.export.export(model.eval(), (example,), dynamic_shapes=dynamic)
        partitioner = VulkanPartitioner(operator_blocklist=[kept])
        edge = to_edge_transform_and_lower(program, partitioner=[partitioner])
        edge.to_executorch().save(str(directory / f"{name}.pte"))


class Packed(nn.Module):
    """A lookup that dequantizes by itself, as the export of language models writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randint(0, 256, (2 * ROWS, COLUMNS // 2), dtype=torch.uint8))
        self.register_buffer("scales", torch.rand(2 * ROWS, COLUMNS // 32) * 0.1 + 0.01)

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        """Look up, negate."""
        lookup = torch.ops.quantized_decomposed.embedding_4bit.dtype
        rows = lookup(self.table, self.scales, None, -8, 7, indices, dtype=torch.float32)
        return -rows


def save_packed(directory: Path) -> None:
    """Write a file whose 4-bit table is read by one of ExecuTorch's quantized CPU kernels."""
    import executorch.kernels.quantized  # noqa: F401, PLC0415 - registers the out variants

    save(directory, "packed", Packed(), (torch.arange(10).reshape(2, 5),), vulkan=False)


def save_xnnpack(directory: Path) -> None:
    """Write a file whose linear is XNNPACK's, with the weights as named data, behind a lookup on the CPU."""
    model = nn.Sequential(on_grid(ROWS, COLUMNS), nn.Linear(COLUMNS, 8), nn.ReLU())
    edge = to_edge_transform_and_lower(
        torch.export.export(model.eval(), (INDICES,)), partitioner=[XnnpackPartitioner()]
    )
    edge.to_executorch().save(str(directory / "xnnpack.pte"))


class Multiplied(nn.Module):
    """A head tied to its table, and products of batches with matrices on a grid: an odd number of outputs, and no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = on_grid(ROWS, COLUMNS)
        self.odd, self.plain = nn.Linear(COLUMNS, 70), nn.Linear(COLUMNS, COLUMNS, bias=False)
        self.odd.weight = nn.Parameter(on_grid(70, COLUMNS).weight)
        self.plain.weight = nn.Parameter(on_grid(COLUMNS, COLUMNS).weight / 16)
        self.turned = nn.Parameter(on_grid(COLUMNS, COLUMNS).weight.t().contiguous())

    def forward(self, indices: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Look up, multiply by each."""
        rows = self.emb(indices)
        hidden = torch.tanh(self.plain(rows))
        head = nn.functional.linear(hidden, self.emb.weight)
        return self.odd(hidden), head, torch.mm(hidden[0], self.turned)


def write_inline_blob(path: Path) -> None:
    """Write a Vulkan blob with every kind of value and inline constants, by upstream's own serializer."""
    values = [
        schema.Null(),
        schema.Int(-(2**40)),
        schema.Double(0.1),
        schema.Bool(True),
        schema.VkTensor(
            datatype=schema.VkDataType.FLOAT32,
            dims=[2, 3],
            constant_id=0,
            mem_obj_id=-1,
            storage_type=schema.VkStorageType.TEXTURE_2D,
            memory_layout=schema.VkMemoryLayout.TENSOR_HEIGHT_PACKED,
        ),
        schema.IntList([3, -4]),
        schema.DoubleList([0.5, -0.25]),
        schema.BoolList([True, False]),
        schema.ValueList([0, 4]),
        schema.String("tanh"),
        schema.SymInt(7),
    ]
    graph = schema.VkGraph(
        version="0",
        chain=[schema.OperatorCall(node_id=9, name="aten.cat.default", args=[8, 1, 4])],
        values=[schema.VkValue(value) for value in values],
        input_ids=[4],
        output_ids=[10],
        constants=[],
        shaders=[],
        storage_type_override=schema.VkStorageType.BUFFER,
        memory_layout_override=schema.VkMemoryLayout.TENSOR_WIDTH_PACKED,
    )
    constants = [torch.arange(6.0).reshape(2, 3), torch.zeros(0), torch.tensor([7, 8], dtype=torch.uint8)]
    path.write_bytes(serialize_vulkan_graph(graph, constants, []))


def programs(directory: Path) -> dict[str, Callable[[], None]]:
    """Every file by name."""
    pair = (torch.ones(2, 4), torch.tensor(True))
    initialized = ExecutorchBackendConfig(
        passes=[InitializedMutableBufferPass(["state"])], emit_mutable_buffer_names=True
    )
    inline = ExecutorchBackendConfig(extract_delegate_segments=False)
    traced = ExecutorchBackendConfig(emit_stacktrace=True)
    external = ExecutorchBackendConfig(external_constants=True)
    tied = Tied()
    return {
        "fused": lambda: save(directory, "fused", int4(Lookup(), nn.Embedding), (INDICES,)),
        "folded": lambda: save(directory, "folded", Lookup(), (INDICES,), vulkan=False),
        "external": lambda: save(directory, "external", Lookup(), (INDICES,), vulkan=False, config=external),
        "traced": lambda: save(directory, "traced", Lookup(), (INDICES,), vulkan=False, config=traced),
        "inline": lambda: save(directory, "inline", Lookup(), (INDICES,), config=inline),
        "rows": lambda: save(directory, "rows", int4(Lookup(), nn.Embedding), (INDICES.reshape(5, 1),)),
        "unfused": lambda: save(directory, "unfused", int8(Lookup()), (INDICES,)),
        "tied": lambda: save(
            directory, "tied", int4(copy.deepcopy(tied), nn.Embedding, nn.Linear), (INDICES,)
        ),
        "sorted": lambda: save(directory, "sorted", int4(Sorted(), nn.Embedding), (INDICES,)),
        "mixed": lambda: save(directory, "mixed", Mixed(), pair, vulkan=False, config=initialized),
        "methods": lambda: save_methods(directory),
        "kept": lambda: save_kept_lookups(directory),
        "packed": lambda: save_packed(directory),
        "multiplied": lambda: save(
            directory, "multiplied", Multiplied(), (INDICES.expand(2, 5).contiguous(),)
        ),
        "xnnpack": lambda: save_xnnpack(directory),
        "blob": lambda: write_inline_blob(directory / "inline_constants.vk"),
    }


def main() -> None:
    """Write every file into the directory given."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    for build in programs(Path(sys.argv[1])).values():
        build()


if __name__ == "__main__":
    main()
