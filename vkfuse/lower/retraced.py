"""Graphs that ExecuTorch's passes trace again: what a node computed before from the same operands is not computed anew.

A lowering traces its graph about thirty times, and most passes change no node or a few. Only shapes and types are computed
then, by fake tensors; that is two thirds of the time of a trace.

Constants of a delegate are written from where they lie in memory: one copy of a table, hashed once.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from executorch.backends.vulkan.serialization.vulkan_graph_builder import VkGraphBuilder, is_param_node
from executorch.exir._serialize._cord import FileBackedData
from executorch.exir.pass_base import _ExportPassBase
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor

from vkfuse.program.content import content

ExportInterpreter: Final = _ExportPassBase.ExportInterpreter


@dataclass(frozen=True, slots=True)
class _Known:
    """A result that an operator had of its operands."""

    result: Any
    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class Results:
    """Results of one lowering by their first tensor, which a node keeps from trace to trace."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}

    def recall(self, node: fx.Node, target: Any, args: Any, kwargs: Any) -> Any:
        """What `node` computed by `target` of equal operands, None where it did not."""
        value = node.meta.get("val")
        known = self._known.get(id(_first_tensor(value)))
        if known is None or known.target is not target or known.result is not _first_tensor(value):
            return None
        return value if _alike(known.args, args) and _alike(known.kwargs, kwargs) else None

    def keep(self, result: Any, target: Any, args: Any, kwargs: Any) -> None:
        """Remember a result that has a tensor."""
        first = _first_tensor(result)
        if first is not None:
            self._known[id(first)] = _Known(first, target, args, kwargs)


def recalling() -> Callable[[Any, fx.Node], Any]:
    """What stands for `ExportInterpreter.run_node` during one lowering; that also writes out every node, for its errors."""
    results = Results()

    def run_node(interpreter: Any, node: fx.Node) -> Any:
        traced = interpreter.callback
        interpreter.node = node
        traced.node_debug_str = node.name
        if not isinstance(traced.interpreter, _Recalling):
            traced.interpreter = _Recalling(results)
        traced.interpreter.node = node
        return fx.Interpreter.run_node(interpreter, node)

    return run_node


class _Recalling(fx.Interpreter):
    """What calls the operators of a pass."""

    node: fx.Node

    def __init__(self, results: Results) -> None:
        super().__init__(fx.GraphModule(torch.nn.Module(), fx.Graph()))
        self._results = results

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Recall what an operator computed, or call it."""
        found = self._results.recall(self.node, target, args, kwargs)
        if found is None:
            found = super().call_function(target, args, kwargs)
            self._results.keep(found, target, args, kwargs)
        return found


def _first_tensor(value: Any) -> FakeTensor | None:
    members = value if isinstance(value, (list, tuple)) else (value,)
    return next((member for member in members if isinstance(member, FakeTensor)), None)


def _alike(before: Any, now: Any) -> bool:
    """Whether operands are the same to an operator that sees shapes and types."""
    if before is now:
        return True
    if isinstance(before, FakeTensor):
        return isinstance(now, FakeTensor) and _described(before) == _described(now) is not None
    if isinstance(before, (list, tuple)):
        both = isinstance(now, (list, tuple)) and len(before) == len(now)
        return both and all(map(_alike, before, now))
    if isinstance(before, Mapping):
        return before.keys() == now.keys() and all(_alike(before[name], now[name]) for name in before)
    if isinstance(before, torch.SymInt):
        return isinstance(now, torch.SymInt) and _written(before) == _written(now)
    return type(before) is type(now) and isinstance(before, _PLAIN) and before == now


_PLAIN: Final = (bool, int, float, str, torch.dtype, torch.device, torch.layout, torch.memory_format)


def _described(value: FakeTensor) -> tuple[object, ...] | None:
    """All that an operator sees of a tensor; None where its numbers are known."""
    if value.constant is not None:
        return None
    sizes = (*value.shape, *value.stride(), value.storage_offset())
    return value.dtype, value.device, value.requires_grad, *map(_written, sizes)


def _written(size: int | torch.SymInt) -> Any:
    """A size as an expression: to compare the symbols themselves would be a guard on them."""
    return size if isinstance(size, int) else size.node.expr


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
