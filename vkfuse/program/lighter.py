"""ExecuTorch, imported in less time and memory: without torch's compiler, and its YAML read by compiled code.

What it has is the same, but for what tells the compiler of two of its operators. Where its modules ask for more than they
are given here, or something else imported them before, they stay as they come.
"""

import importlib
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from types import ModuleType
from typing import Any, Final
from unittest import mock

from torch import fx

# Modules of the compiler, which import all that lowers for CPUs and GPUs: 36 MiB.
_PASSES: Final = "torch._inductor.fx_passes.post_grad"
_LOWERINGS: Final = "torch._inductor.lowering"
_UNDONE: Final = {"auto_functionalized", "auto_functionalized_v2", "control_deps"}


@cache
def import_executorch() -> None:
    """Import ``executorch.exir``, which all of ExecuTorch's other modules import."""
    _import(
        "torch.export._remove_auto_functionalized_pass", _PASSES, decompose_auto_functionalized=_decomposed
    )
    with mock.patch("ruamel.yaml.YAML", _Compiled):  # for edge.yaml, 0.5 seconds of Python code
        importlib.import_module("executorch.exir")


def import_llm_operators() -> None:
    """Import what registers the ``llama`` operators."""
    name = "executorch.extension.llm.custom_ops.custom_ops"
    _import(name, _LOWERINGS, lowerings={}, register_lowering=_unregistered)
    importlib.import_module(name)


def _import(name: str, without: str, **instead: object) -> None:
    """Import a module with a stand-in for another one; leave it where it asks for something else of that."""
    if without in sys.modules:
        return
    sys.modules[without] = ModuleType(without)
    vars(sys.modules[without]).update(instead)
    try:
        with suppress(ImportError):
            importlib.import_module(name)
    finally:
        del sys.modules[without]


def _decomposed(graph: fx.Graph) -> None:
    """Do what the compiler's does: nothing where a graph has neither such calls nor attributes that nobody reads."""
    if any(str(node.target) in _UNDONE or (node.op == "get_attr" and not node.users) for node in graph.nodes):
        importlib.import_module(_PASSES).decompose_auto_functionalized(graph)


def _unregistered(_operator: object) -> Callable[[Any], Any]:
    return lambda function: function


class _Compiled:
    """``ruamel.yaml.YAML`` as far as ``executorch.exir.dialects.edge`` calls it."""

    def __init__(self, *, typ: str) -> None:
        self._typ = typ

    def load(self, text: str) -> Any:
        """Return what a document says, by libyaml where it is there."""
        import yaml  # type: ignore[import-untyped]  # noqa: PLC0415 - ExecuTorch requires it

        if hasattr(yaml, "CSafeLoader"):
            return yaml.load(text, yaml.CSafeLoader)
        from ruamel.yaml.main import YAML  # noqa: PLC0415 - likewise

        return YAML(typ=self._typ).load(text)
