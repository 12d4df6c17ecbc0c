"""What torch does for others and costs this program: history and code of graphs, threads for small pieces of tables."""

import typing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch import fx
from torch._export.serde import schema
from torch.fx.graph import _PyTreeCodeGen
from torch.fx.traceback import NodeSource


@contextmanager
def lean_graphs() -> Iterator[None]:
    """Within, a graph's code is generated when it is first called, and of its history a node keeps what it was first.

    Graphs change a hundred times between two calls, and each change generates the code anew; each copy of a node copies the
    history of all that it was copied from; the types of a serialized program are resolved once a class and not once a node.
    What is written is the same, byte for byte. One thread at a time (`quiet`).
    """
    with (
        mock.patch.object(fx.GraphModule, "recompile", _recompile_later),
        mock.patch.object(NodeSource, "__init__", _with_its_first),
        mock.patch.object(typing, "get_type_hints", _hints),
    ):
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, torch computes in one thread.

    Tables are looked at, and their products computed, in pieces of a millisecond; threads meet after each, and where others
    want the cores too, as on a machine of CI, the wait is up to fifty times the work. Sums are the same on any machine.
    A count that is set holds for new threads too, and one that began to compute in the meantime keeps it: so what a new
    thread has is given back.
    """
    with ThreadPoolExecutor(1) as another:
        threads = another.submit(torch.get_num_threads).result()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


_get_type_hints = typing.get_type_hints


@cache
def _serialized_hints(of: type) -> dict[str, Any]:
    return _get_type_hints(of, globalns=vars(schema))


def _hints(of: Any, globalns: dict[str, Any] | None = None, *args: Any, **kwargs: Any) -> dict[str, Any]:
    if globalns is vars(schema) and not args and not kwargs:
        return _serialized_hints(of)
    return _get_type_hints(of, globalns, *args, **kwargs)


_recompile = fx.GraphModule.recompile
_from_node = NodeSource.__init__


def _recompile_later(module: Any) -> None:
    codegen = module.graph._codegen  # noqa: SLF001 - no public name
    if isinstance(codegen, _PyTreeCodeGen):
        module._in_spec = codegen.pytree_info.in_spec  # noqa: SLF001
        module._out_spec = codegen.pytree_info.out_spec  # noqa: SLF001
    module.__dict__.pop("_code", None)
    type(module).forward, type(module)._code = _FORWARD, _CODE  # noqa: SLF001 - a class of each module's own


class _Code:
    """The source of a module that has not been called yet: of use to logs, and to who asks after a run."""

    def __get__(self, module: Any, owner: type | None = None) -> Any:
        if module is None:
            return self
        _recompile(module)
        return module.__dict__["_code"]


class _Forward:
    """The forward of a module whose code is generated when it is asked for: called, or its signature looked at."""

    def __get__(self, module: Any, owner: type | None = None) -> Any:
        if module is None:
            return self
        _recompile(module)
        return module.forward


_FORWARD, _CODE = _Forward(), _Code()


def _with_its_first(source: NodeSource, node: fx.Node | None, *args: Any, **kwargs: Any) -> None:
    """Keep of a node's history what it was first: ExecuTorch tells nodes apart by that (exir/debug_handle_utils.py)."""
    _from_node(source, None, *args, **kwargs)
    if node is None:
        return
    source.node_info = NodeSource.NodeInfo(name=node.name, target="", graph_id=id(node.graph))
    history = node.meta.get("from_node")
    if history:
        first = history[-1]
        while first.from_node:
            first = first.from_node[-1]
        source.from_node = [first]
