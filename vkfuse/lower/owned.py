"""Where the state of a method lives: on the GPU, where buffers are that one delegate alone reads and writes.

The delegate holds such a buffer as a constant, which the runtime copies to the GPU once, while it loads (`et_vk.prepack`),
into memory of its own (runtime/graph/ComputeGraph.cpp, prepack: allocations that no other tensor shares). What the
program writes is copied there behind everything that reads the old value, and the next call finds it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import executorch.backends.vulkan.op_registry as vulkan_registry
import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.errors import LoweringError
from vkfuse.lower.operands import operator_name
from vkfuse.quantities import some
from vkfuse.runtime.operators.attention import IN_DELEGATES


class Outside(StrEnum):
    """Why a buffer is memory of the method, which crosses over with each call."""

    SEVERAL_METHODS = "other methods have it too, and delegates share no memory of the GPU"
    NO_FLOATS = "it holds no floats"
    READ_AS_WEIGHT = "an operator lays it out for itself when the delegate loads, as a weight"
    SEVERAL_PARTS = "one delegate does not have it alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatePlace:
    """A buffer that a method writes, of so many bytes: kept by a delegate, or outside for a reason."""

    buffer: str
    nbytes: int
    outside: Outside | None = None


def place_notes(places: Mapping[str, Sequence[StatePlace]]) -> Iterator[str]:
    """A line for what each method keeps on the GPU, and for each reason why something is not.

    Of state of several methods `state_notes` speaks.
    """
    for method, states in places.items():
        for reason in (None, *(r for r in Outside if r is not Outside.SEVERAL_METHODS)):
            found = [state for state in states if state.outside is reason]
            if found:
                yield f"{method} {_kept(found, reason)}: {some(state.buffer for state in found)}"


def _kept(states: Sequence[StatePlace], reason: Outside | None) -> str:
    size = f"{len(states)} buffer{'s' * (len(states) > 1)} ({sum(s.nbytes for s in states):,} bytes)"
    return (
        f"keeps {size} on the GPU" if reason is None else f"keeps {size} outside of delegates, {reason.value}"
    )


TAG = "delegation_tag"
_KINDS = frozenset({torch.float32, torch.float16})  # what the runtime's copies were seen to take


def tag_owned_state(program: ExportedProgram, several: Collection[str]) -> Iterator[StatePlace]:
    """Give each buffer that one delegate alone has to do with to that delegate, less those of `several` methods.

    To be called when all else is tagged. Yields where each buffer is.
    """
    signature = program.graph_signature
    placeholders = {name: node for node, name in signature.inputs_to_buffers.items()}
    nodes = {node.name: node for node in program.graph.nodes}
    for output, buffer in signature.buffers_to_mutate.items():
        state, new = nodes.get(placeholders.get(buffer, "")), nodes[output]
        if state is None:
            continue
        outside = Outside.SEVERAL_METHODS if buffer in several else _why_outside(state, new)
        if outside is None:
            state.meta[TAG] = new.meta[TAG]
        value = state.meta["val"]
        yield StatePlace(buffer=buffer, nbytes=value.numel() * value.element_size(), outside=outside)


class StateOutsideError(LoweringError):
    """A cache would be written in place by no delegate: the program is to be lowered with its caches outside."""


def require_delegated(program: ExportedProgram) -> None:
    """Raise StateOutsideError where a write in place, or what reads it, is in no delegate: the CPU has no such operator."""
    for node in program.graph.nodes:
        if node.op == "call_function" and operator_name(node) in IN_DELEGATES and node.meta.get(TAG) is None:
            raise StateOutsideError(
                f"{node.args[0].name} is written in place outside of a delegate",
                hint="Partitioner(in_place=False) leaves caches outside",
            )


def _why_outside(state: fx.Node, new: fx.Node) -> Outside | None:
    """Why no delegate keeps `state`, of which `new` is the next value; None where the one of `new` does."""
    if state.meta["val"].dtype not in _KINDS:
        return Outside.NO_FLOATS
    tag = new.meta.get(TAG)
    readers = [*state.users, *(user for user in new.users if user.op != "output")]
    alone = tag is not None and all(user.meta.get(TAG) == tag for user in readers)
    if not alone or not state.users or _times_returned(new) != 1:
        return Outside.SEVERAL_PARTS
    return Outside.READ_AS_WEIGHT if any(_packs(user, state) for user in state.users) else None


def _times_returned(node: fx.Node) -> int:
    results: list[Any] = [result for user in node.users if user.op == "output" for result in _results(user)]
    return sum(node is result for result in results)


def _results(output: fx.Node) -> tuple[Any, ...]:
    (results,) = output.args
    return tuple(results) if isinstance(results, (tuple, list)) else (results,)


def _packs(reader: fx.Node, state: fx.Node) -> bool:
    """Whether `reader` would lay `state` out for itself when the delegate loads, as it does with weights."""
    own: bool = vulkan_registry.handles_own_prepacking(reader.target)
    return own and (not reader.args or reader.args[0] is not state)
