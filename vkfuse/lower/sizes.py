"""Sizes by arithmetic that ExecuTorch has, and no larger than they can be."""

import operator
from collections.abc import Iterable, Iterator
from functools import reduce
from typing import Any, Final

import sympy  # type: ignore[import-untyped]
import torch
from torch import fx
from torch.utils._sympy.functions import FloorDiv
from torch.utils._sympy.value_ranges import bound_sympy

from vkfuse.program.guards import whole_quotient

_SUM: Final = torch.sym_sum


def bounded(size: Any, ranges: Any = None) -> Any:
    """The range of a size, an expression: what n * n // n is bounded by is the bound of n."""
    return bound_sympy(
        size.replace(FloorDiv, _whole, simultaneous=False) if isinstance(size, sympy.Basic) else size, ranges
    )


def _whole(size: sympy.Expr, by: sympy.Expr) -> sympy.Expr:
    exact = whole_quotient(size, by)
    return FloorDiv(size, by) if exact is None else exact


def in_known_arithmetic(graph: fx.Graph) -> None:
    """Write powers of sizes as products, and sums of several as sums of two: ExecuTorch emits neither.

    Source: exir/passes/executorch_prim_ops_registry.py.
    """
    for node in [*graph.nodes]:
        by, terms = _steps(node)
        if by is not None:
            with graph.inserting_before(node):
                node.replace_all_uses_with(reduce(lambda a, b: _call(graph, by, a, b), terms))
            graph.erase_node(node)


def _steps(node: fx.Node) -> tuple[Any, list[Any]]:
    """What combines two numbers, and the numbers; None where a node is another call."""
    if node.target is operator.pow and isinstance(node.args[1], int) and node.args[1] > 0:
        return operator.mul, [node.args[0]] * node.args[1]
    if node.target is _SUM:
        return operator.add, [*_flat(node.args)]
    return None, []


def _flat(terms: Iterable[Any]) -> Iterator[Any]:
    for term in terms:
        yield from term if isinstance(term, (list, tuple)) else (term,)


def _call(graph: fx.Graph, by: Any, *terms: Any) -> fx.Node:
    node = graph.call_function(by, terms)
    node.meta["val"] = by(*fx.node.map_arg(terms, lambda term: term.meta["val"]))
    return node
