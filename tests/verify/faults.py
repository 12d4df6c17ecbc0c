"""Bytes of a good file changed on purpose."""

import struct
from collections.abc import Callable, Iterator

import torch

from vkfuse.errors import FormatError
from vkfuse.pte import PteFile, parse_pte, vulkan_graphs
from vkfuse.pte.values import Int
from vkfuse.pte.vulkan import OperatorCall, VkTensor, VulkanGraph


def call_of(pte: PteFile, operator: str) -> tuple[VulkanGraph, OperatorCall]:
    """Return the first call of an operator, and its graph."""
    for graph in vulkan_graphs(pte).values():
        for call in graph.chain:
            if call.name == operator:
                return graph, call
    raise AssertionError(operator)


def with_constant(
    data: bytes, operator: str, argument: int, change: Callable[[torch.Tensor], torch.Tensor]
) -> bytes:
    """Return the file with one constant argument of an operator replaced; the same bytes may serve others too."""
    pte = parse_pte(data)
    graph, call = call_of(pte, operator)
    spec = graph.values[call.args[argument]]
    assert isinstance(spec, VkTensor)
    constant = graph.constants[spec.constant_id]
    at = next(entry.data_at for entry in pte.named if entry.key == constant.named_key)
    old = data[at.offset : at.offset + spec.nbytes]
    dtype = {1: torch.uint8, 3: torch.int32, 4: torch.float16, 5: torch.float32}[int(spec.dtype)]
    new = (
        change(torch.frombuffer(bytearray(old), dtype=dtype).reshape(spec.dims))
        .contiguous()
        .numpy()
        .tobytes()
    )
    assert len(new) == len(old)
    assert new != old
    return data[: at.offset] + new + data[at.offset + len(old) :]


def with_integer(data: bytes, operator: str, argument: int, value: int) -> bytes:
    """Return the file with an integer argument of an operator changed in its flatbuffer."""
    pte = parse_pte(data)
    graph, call = call_of(pte, operator)
    index = call.args[argument]
    old = graph.values[index]
    assert isinstance(old, Int)
    for changed in _patched(data, struct.pack("<q", old.value), struct.pack("<q", value)):
        try:
            other, _ = call_of(parse_pte(changed), operator)
        except FormatError:
            continue
        differing = [
            at for at, pair in enumerate(zip(graph.values, other.values, strict=True)) if pair[0] != pair[1]
        ]
        if differing == [index] and other.values[index] == Int(value) and other.chain == graph.chain:
            return changed
    raise AssertionError(f"no place of {old}")


def _patched(data: bytes, old: bytes, new: bytes) -> Iterator[bytes]:
    at = data.find(old)
    while at >= 0:
        yield data[:at] + new + data[at + len(old) :]
        at = data.find(old, at + 1)
