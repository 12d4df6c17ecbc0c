"""Numbers and sizes that only a run knows: what a program reads off its tensors, and where its source does so."""

import re
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

NUMBERS_HINT: Final = "select rows by a tensor of positions, and let sizes follow from the shapes of inputs"
_PLACE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)[^\n]*\n\s*(?P<code>[^\n]+)')


def number_only_a_run_knows(methods: Mapping[str, ExportedProgram]) -> str:
    """Which method reads a number off a tensor first, and where in the user's source; empty where none does."""
    for name, exported in methods.items():
        node = next((node for node in exported.graph.nodes if _is_origin(node)), None)
        if node is not None:
            return f", {name} of which computes with a number that only a run knows ({_described(node)})"
    return ""


def _described(node: fx.Node) -> str:
    """A node, and the place in the user's source where it is called."""
    found = [*_PLACE.finditer(str(node.meta.get("stack_trace") or ""))]
    if not found:
        return node.name
    return f"{node.name}, {found[-1]['file']}:{found[-1]['line']}: {found[-1]['code'].strip()}"


def _is_origin(node: fx.Node) -> bool:
    """Whether a node has symbols that none of its inputs has."""
    if node.op != "call_function":
        return False
    known = {s for n in node.all_input_nodes for s in _unbacked(n.meta.get("val"))}
    return bool(_unbacked(node.meta.get("val")) - known)


def _unbacked(value: Any) -> set[Any]:
    """Symbols of numbers and sizes; where in its storage a slice begins is none of its sizes."""
    if isinstance(value, (list, tuple, torch.Tensor)):
        members = value.shape if isinstance(value, torch.Tensor) else value
        return {symbol for member in members for symbol in _unbacked(member)}
    known = not isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool))
    return set() if known else set(free_unbacked_symbols(value))
