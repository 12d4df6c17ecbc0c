"""How long a symbolic expression becomes when sympy multiplies it out, which torch lets it do. Imports no torch."""

import ast
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final

MAX_TERMS: Final = 100  # of a size; those of language models have a few
_MAX_EXTREMES: Final = 24  # arguments of Max and Min in one expression, which sympy compares with each other

Exponent = Callable[[ast.expr], int | float | None]


def too_long(tree: ast.expr, exponent: Exponent) -> bool:
    """Whether `tree`, or what a function in it is of, has more than `MAX_TERMS` when multiplied out, or too many extremes.

    `exponent` gives the number that a node is, None where it is none.
    """
    try:
        return _Expansion(exponent).terms(tree) > MAX_TERMS or _extremes(tree) > _MAX_EXTREMES
    except OverflowError:
        return True


def _extremes(tree: ast.expr) -> int:
    """How many arguments Max and Min have in all."""
    return sum(
        len(node.args)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"Max", "Min"}
    )


class _Expansion:
    def __init__(self, exponent: Exponent) -> None:
        self._exponent = exponent

    def terms(self, node: ast.expr) -> int:
        """Terms of a sum. OverflowError above the limit, so that numbers stay small on the way."""
        parts = [self.terms(part) for part in _parts(node)]
        found = self._combined(node, parts)
        if found > MAX_TERMS:
            raise OverflowError
        return found

    def _combined(self, node: ast.expr, parts: list[int]) -> int:
        kind = _kind(node)
        if kind == "power" and len(parts) == 2:
            power = abs(self._exponent(_parts(node)[1]) or 0)
            return math.comb(math.ceil(power) + parts[0] - 1, parts[0] - 1)
        return _COMBINED.get(kind, _atom)(parts)


def _atom(_parts: Iterable[int]) -> int:
    """A symbol, a number, or what sympy does not look into."""
    return 1


_COMBINED: Final[Mapping[str, Callable[[list[int]], int]]] = {
    "sum": sum,
    "product": math.prod,
    "same": lambda parts: parts[0],
}
_KINDS: Final[Mapping[str | type, str]] = {
    **dict.fromkeys(("Add", ast.Add, ast.Sub), "sum"),
    **dict.fromkeys(("Mul", ast.Mult, ast.Div), "product"),
    **dict.fromkeys(("Pow", "PowByNatural", "FloatPow", ast.Pow), "power"),
    **dict.fromkeys(("Identity", "ToFloat", ast.UnaryOp), "same"),
}


def _kind(node: ast.expr) -> str:
    match node:
        case ast.BinOp(op=op):
            return _KINDS.get(type(op), "")
        case ast.Call(func=ast.Name(id=name), args=[_, *_]):
            return _KINDS.get(name, "")
    return _KINDS.get(type(node), "")


def _parts(node: ast.expr) -> list[ast.expr]:
    """The expressions that `node` is made of."""
    return [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)][
        isinstance(node, ast.Call) :
    ]
