"""What inputs a program takes: rows of the tables that they index, bounds of the dynamic dimensions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sympy  # type: ignore[import-untyped]
import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.errors import CheckFailedError
from vkfuse.pte.model import Tensor, Value

ORDERS_VALUES: Final = frozenset(
    {
        "_to_copy", "to", "clone", "alias", "alias_copy", "contiguous", "detach", "lift_fresh_copy",
        "view", "view_copy", "reshape", "_unsafe_view", "flatten", "unsqueeze", "unsqueeze_copy",
        "squeeze", "squeeze_copy", "expand", "expand_copy", "permute", "permute_copy", "transpose",
        "slice", "slice_copy", "select", "select_copy", "t", "narrow",
    }
)  # fmt: skip
_NO_BOUND: Final = 1 << 31
_ONE_OF_NONE: Final = "where two operands meet, a delegate makes one row of none"
_WRITES: Final = frozenset({"index_copy", "index_put"})
_LAPS: Final = 4  # of a ring, whose rows positions come back to
Shape = tuple[int | sympy.Expr, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """`rows` of the smallest table that an input indexes, by the input's position; `shapes` of tensor inputs.

    `bounds` of each symbol are what both the program and the file allow. `distinct` are positions of inputs that say where
    rows are written: what is written to one row twice, torch leaves open. Of a ring `rows` are those of several rounds.
    """

    rows: Mapping[int, int]
    shapes: Mapping[int, Shape]
    bounds: Mapping[sympy.Symbol, tuple[int, int]]
    distinct: frozenset[int] = frozenset()

    def sizes(self, position: int, lengths: Mapping[sympy.Symbol, int]) -> tuple[int, ...] | None:
        """Return the shape of an input for given lengths; None where the input is no tensor."""
        shape = self.shapes.get(position)
        if shape is None:
            return None
        return tuple(size if isinstance(size, int) else int(size.subs(lengths)) for size in shape)


def domain_of(exported: ExportedProgram, file_inputs: Sequence[Value]) -> Domain:
    """Read the domain from the graph, and the longest dimensions from the file's own inputs."""
    placeholders = _user_placeholders(exported)
    shapes = {
        position: tuple(_declared_size(exported, size) for size in node.meta["val"].shape)
        for position, node in enumerate(placeholders)
        if node is not None and isinstance(node.meta.get("val"), torch.Tensor)
    }
    uses = {
        position: _uses(node)
        for position, node in enumerate(placeholders)
        if node is not None and _is_integers(node)
    }
    return Domain(
        rows={position: min(use.rows for use in of) for position, of in uses.items() if of},
        shapes=shapes,
        bounds=_bounds(exported, shapes, file_inputs),
        distinct=frozenset(position for position, of in uses.items() if any(use.writes for use in of)),
    )


def check_bounds(exported: ExportedProgram, domain: Domain, file_inputs: Sequence[Value]) -> None:
    """Raise CheckFailedError where the file takes less along a dimension than the program, which says how much it takes."""
    for position, shape in domain.shapes.items():
        spec = file_inputs[position] if position < len(file_inputs) else None
        for axis, size in enumerate(shape):
            if isinstance(size, int) or not isinstance(spec, Tensor) or axis >= len(spec.sizes):
                continue
            highs = {symbol: _declared(exported, symbol)[1] for symbol in size.free_symbols}
            most = int(size.subs(highs))
            if spec.sizes[axis] < most and max(highs.values()) < _NO_BOUND:
                raise CheckFailedError(
                    f"input {position} may be {most} long in dimension {axis}, of the file only {spec.sizes[axis]}",
                    hint="longer inputs fail; lower the program again",
                )


def _user_placeholders(exported: ExportedProgram) -> list[fx.Node | None]:
    """Placeholders of the user's inputs in order; None for one that is a constant."""
    by_name = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    return [by_name.get(str(name)) for name in exported.graph_signature.user_inputs]


def _declared_size(exported: ExportedProgram, size: Any) -> int | sympy.Expr:
    """A size as the program declares it: what a lowering took it for is the same symbol's value from then on."""
    known = _size(size)
    if not isinstance(size, torch.SymInt) or not isinstance(known, int):
        return known
    declared = size.node._expr  # noqa: SLF001 - no public name
    ranges = [exported.range_constraints.get(symbol) for symbol in declared.free_symbols]
    return declared if any(of is not None and of.lower < of.upper for of in ranges) else known


def _size(size: Any) -> int | sympy.Expr:
    if isinstance(size, torch.SymInt):
        expression = size.node.expr
        return int(expression) if expression.is_number else expression
    return int(size)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Use:
    """An index into `rows` rows, less what is added to it before, which may say where something `writes`."""

    rows: int
    writes: bool


def _is_integers(placeholder: fx.Node) -> bool:
    value = placeholder.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype in {torch.int32, torch.int64}


def _uses(placeholder: fx.Node) -> list[_Use]:
    """What the values of a placeholder index."""
    found: list[_Use] = []
    waiting, seen = [(placeholder, 0, 1)], set()
    while waiting:
        node, added, laps = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        for user in node.users:
            writes = packet_of(user) in _WRITES
            found.extend(_Use(rows=rows * laps - added, writes=writes) for rows in _indexed(user, node))
            more = _moved(user, node)
            if more is not None:
                waiting.append((user, added + more, _LAPS if packet_of(user) == "remainder" else laps))
    return found


def _moved(user: fx.Node, node: fx.Node) -> int | None:
    """How much larger the values of `user` may be, which has those of `node`; None where it has others."""
    packet = packet_of(user)
    if packet in {*ORDERS_VALUES, "remainder"} and user.args and user.args[0] is node:
        return 0
    if packet == "copy" and user.args[1] is node:
        return 0
    others = [other for other in user.args if other is not node]
    if packet == "add" and len(others) == 1 and isinstance(others[0], fx.Node):
        counted = packet_of(others[0]) == "arange" and len(others[0].args) == 1
        return next((size - 1 for size in _dim(others[0], 0)), None) if counted else None
    return None


def packet_of(node: fx.Node) -> str:
    """Return the operator without namespace and overload; empty for what is no operator."""
    target = node.target
    return str(target).split(".")[1] if node.op == "call_function" and str(target).count(".") else ""


def _indexed(user: fx.Node, index: fx.Node) -> list[int]:
    """Sizes of the dimensions that `user` indexes with `index`."""
    packet = packet_of(user)
    if packet.startswith("embedding"):
        return _dim(user.args[0], 0) if index in user.args[1:] else []
    if packet in {"index_select", "gather"} and len(user.args) > 2 and user.args[2] is index:
        return _dim(user.args[0], user.args[1])
    if packet == "index_copy" and len(user.args) > 2 and user.args[2] is index:
        return _dim(user.args[0], user.args[1])
    if packet in {"index", "index_put"} and isinstance(user.args[1], list | tuple):
        return [
            size for at, other in enumerate(user.args[1]) if other is index for size in _dim(user.args[0], at)
        ]
    return []


def _dim(node: Any, dim: Any) -> list[int]:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    if not isinstance(value, torch.Tensor) or not isinstance(dim, int):
        return []
    size = _size(value.shape[dim])
    return [size] if isinstance(size, int) else []


def _bounds(
    exported: ExportedProgram, shapes: Mapping[int, Shape], file_inputs: Sequence[Value]
) -> dict[sympy.Symbol, tuple[int, int]]:
    """(least, largest) of each symbol in the shapes of inputs; the file's tensors are upper bounds."""
    bounds: dict[sympy.Symbol, tuple[int, int]] = {}
    for position, shape in shapes.items():
        spec = file_inputs[position] if position < len(file_inputs) else None
        for axis, size in enumerate(shape):
            for symbol in () if isinstance(size, int) else sorted(size.free_symbols, key=str):
                low, high = bounds.get(symbol) or _declared(exported, symbol)
                if isinstance(spec, Tensor) and axis < len(spec.sizes):
                    high = min(high, _largest(size, symbol, spec.sizes[axis], high))
                bounds[symbol] = (low, max(low, high))
    return bounds


def _declared(exported: ExportedProgram, symbol: sympy.Symbol) -> tuple[int, int]:
    """Range of a symbol as the program declares it; no upper bound is a very large one."""
    values = exported.range_constraints.get(symbol)
    if values is None:
        return 1, _NO_BOUND
    high = int(values.upper) if values.upper.is_Integer else _NO_BOUND
    return max(1, int(values.lower)), high


def empty_calls(exported: ExportedProgram, domain: Domain) -> Iterator[str]:
    """Yield which calls of nothing a program takes; `domain` begins at one: runtimes make one row of none (measured)."""
    for position, shape in domain.shapes.items():
        for axis, size in enumerate(shape):
            values = None if isinstance(size, int) else exported.range_constraints.get(size)
            if values is not None and int(values.lower) <= 0:
                yield f"calls with nothing along dimension {axis} of input {position}: {_ONE_OF_NONE}"


def _largest(size: sympy.Expr, symbol: sympy.Symbol, most: int, high: int) -> int:
    """Largest value of a symbol for which a size stays within `most`."""
    if size == symbol:
        return min(most, high)
    if size.free_symbols != {symbol}:
        return high
    low, top = 0, min(high, most * 64 + 64)
    while low < top:
        middle = (low + top + 1) // 2
        low, top = (middle, top) if int(size.subs({symbol: middle})) <= most else (low, middle - 1)
    return low
