"""Constants of a delegate that are written from where they lie in memory: one copy of a table, hashed once."""

import io
from typing import Any, Final

import torch
from executorch.backends.vulkan.serialization.vulkan_graph_builder import VkGraphBuilder, is_param_node
from executorch.exir._serialize._cord import FileBackedData

from vkfuse.program.content import content

ALIGNMENT: Final = 16  # bytes, as upstream's builder has it


class HeldData(FileBackedData):  # type: ignore[misc]
    """What ExecuTorch writes without having it as `bytes`: to it a file's data, here the memory of a tensor.

    Upstream has no other class for data that it only measures, hashes and streams (exir/_serialize/_cord.py).
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self._bytes = tensor.detach().reshape(-1).view(torch.uint8).numpy().data.toreadonly()
        self._digest = bytes.fromhex(content(tensor)[0])

    def __deepcopy__(self, memo: dict[int, Any]) -> "HeldData":
        """Return itself, as bytes do: nobody writes to it."""
        return self

    def __len__(self) -> int:
        """Bytes of the tensor."""
        return self._bytes.nbytes

    def prefix(self, size: int) -> bytes:
        """Return the first bytes."""
        return bytes(self._bytes[:size])

    def sha256(self) -> bytes:
        """Return the hash of all bytes."""
        return self._digest

    def to_bytes(self) -> bytes:
        """Return a copy."""
        return bytes(self._bytes)

    def write_to_file(self, outfile: io.BufferedIOBase) -> None:
        """Write all bytes."""
        outfile.write(self._bytes)

    def close(self) -> None:
        """Nothing is open."""


def add_held_constant(builder: VkGraphBuilder, node: torch.fx.Node) -> int:
    """The number of a node's constant, -1 for no constant; upstream's way where its type changes or it is empty."""
    if not is_param_node(builder.program, node):
        return -1
    tensor = builder.get_param_tensor(node).contiguous()
    size = tensor.numel() * tensor.element_size()
    whole = tensor.untyped_storage().nbytes() == size and size > 0
    if not whole or builder.get_effective_dtype(tensor.dtype) != tensor.dtype:
        return int(_upstream(builder, node))
    held = HeldData(tensor)
    builder.named_data_store.add_named_data(held.sha256().hex(), held, alignment=ALIGNMENT)
    builder.const_tensors.append((held.sha256().hex(), size))
    return len(builder.const_tensors) - 1


_upstream = VkGraphBuilder.maybe_add_constant_tensor
