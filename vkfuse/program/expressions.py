"""Symbolic expressions of a serialized program, read as syntax: torch hands them to sympy, which evaluates.

Only the functions that torch's printer writes are allowed, and no number may grow beyond what a size can be: sympy computes
`9**9**9**9` where it stands. Imports no torch.
"""

import ast
import re
from collections.abc import Callable, Mapping
from typing import ClassVar, Final, NoReturn

from vkfuse.errors import InputError, UnsafePickleError
from vkfuse.program.expansion import MAX_TERMS, too_long

MAX_CHARACTERS: Final = 100_000
MAX_BITS: Final = 4096  # of what arithmetic on constants may come to
MAX_EXPONENT: Final = 64  # of powers and shifts, of symbols too
MAX_DIGITS: Final = 1000  # of a number with a point
MAX_SYMBOL: Final = 1_000_000  # torch counts up to the number in the name of a symbol

_SYMBOL: Final = re.compile(r"[A-Za-z_]\w{0,60}", re.ASCII)
_BARE: Final = re.compile(
    r"(s|u|z|zf|zuf)\d{1,7}", re.ASCII
)  # anything else would be looked up among sympy's names
_DIGITS: Final = re.compile(r"[-+]?[\d.]{1,40}(e[-+]?\d{1,3})?|inf|nan", re.ASCII)
_CONSTANTS: Final = frozenset(["True", "False", "true", "false", "oo", "int_oo", "nan", "zoo"])
_ASSUMED: Final = "integer positive nonnegative negative nonzero real finite commutative evaluate"
_ASSUMPTIONS: Final = frozenset(_ASSUMED.split())
_GROWING: Final = frozenset(
    ["Pow", "PowByNatural", "FloatPow", "LShift"]
)  # of a base, or a number, and so much
_PRINTED: Final = """
Abs Add And CeilDiv CeilToInt CleanDiv Eq Equality FloatTrueDiv FloorDiv FloorToInt Float Ge
GreaterThan Gt Identity Integer IntTrueDiv Le LessThan Lt Max Min Mod ModularIndexing Mul Ne Not Or
PythonMod Rational RoundDecimal RoundToInt RShift StrictGreaterThan StrictLessThan Symbol ToFloat
TruncToFloat TruncToInt Unequality Where ceiling floor
"""
_FUNCTIONS: Final = _GROWING | frozenset(_PRINTED.split())
_OPERATORS: Final = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.BitAnd, ast.BitOr)
_NUMBERS: Final = ("Integer", "Float", "Rational")


def check_expression(expression: str, where: str) -> None:
    """Raise UnsafePickleError for what torch's printer does not write, InputError for numbers beyond all bounds."""
    if len(expression) > MAX_CHARACTERS:
        raise InputError(f"{where}: an expression of {len(expression):,} characters", hint=_HINT)
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
        bits = _Reader(where, expression).bits(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _odd(expression, where) from error
    if bits > MAX_BITS:
        raise _huge(expression, where)
    if too_long(tree, _literal):
        raise InputError(
            f"{where}: {expression[:80]!r} is more than {MAX_TERMS:,} terms, multiplied out, or of too many extremes",
            hint=_HINT,
        )


def check_symbol(name: str, where: str) -> None:
    """Raise UnsafePickleError where `name` is no symbol of torch's (`s27`, `u0`), InputError for a number too large."""
    if not _SYMBOL.fullmatch(name):
        raise _odd(name, where)
    number = re.search(r"\d+$", name)
    if number and int(number[0]) > MAX_SYMBOL and name[0] in "uz":
        raise InputError(f"{where}: a symbol {name!r}", hint=_HINT)


_HINT: Final = "export the program again from its source"


def _odd(expression: str, where: str) -> UnsafePickleError:
    return UnsafePickleError(f"{where}: {expression[:80]!r} is no plain symbolic expression", hint=_HINT)


def _huge(expression: str, where: str) -> InputError:
    return InputError(
        f"{where}: {expression[:80]!r} computes a number of more than {MAX_BITS} bits", hint=_HINT
    )


class _Reader:
    """Walks an expression; the size of a number is that of a constant, and 0 bits stand for a symbol's."""

    def __init__(self, where: str, expression: str) -> None:
        self._where, self._expression = where, expression

    def bits(self, node: ast.expr) -> int:
        """At most how many bits the constants in `node` come to. Raises what `check_expression` does."""
        read = self._READERS.get(type(node))
        found = self._odd(node) if read is None else read(self, node)
        if found > MAX_BITS:
            raise _huge(self._expression, self._where)
        return found

    def _odd(self, _node: object) -> NoReturn:
        raise _odd(self._expression, self._where)

    def _constant(self, node: ast.Constant) -> int:
        match node.value:
            case bool() | int() as number:
                return number.bit_length()
            case float():
                return 64
        return self._odd(node)

    def _name(self, node: ast.Name) -> int:
        return 0 if node.id in _CONSTANTS or _BARE.fullmatch(node.id) else self._odd(node)

    def _unary(self, node: ast.UnaryOp) -> int:
        return self.bits(node.operand)

    def _binary(self, node: ast.BinOp) -> int:
        if isinstance(node.op, (ast.Pow, ast.LShift)):
            return self._power(node.left, node.right)
        return self._together((node.left, node.right)) if isinstance(node.op, _OPERATORS) else self._odd(node)

    def _compare(self, node: ast.Compare) -> int:
        return self._together((node.left, *node.comparators))

    def _call(self, node: ast.Call) -> int:
        """Only of a function of the list, by its bare name."""
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name == "Symbol":
            return self._symbol(node.args, node.keywords)
        if name in _NUMBERS:
            return self._number(name, node.args, node.keywords)
        if name not in _FUNCTIONS:
            self._odd(node)
        self._assumptions(node.keywords)
        if name in _GROWING and len(node.args) == 2:
            return self._power(*node.args)
        return self._together(node.args)

    _READERS: ClassVar[Mapping[type[ast.expr], Callable[..., int]]] = {
        ast.Constant: _constant,
        ast.Name: _name,
        ast.UnaryOp: _unary,
        ast.BinOp: _binary,
        ast.Compare: _compare,
        ast.BoolOp: lambda self, node: self._together(node.values),
        ast.Tuple: lambda self, node: self._together(node.elts),
        ast.Call: _call,
    }

    def _together(self, parts: "list[ast.expr] | tuple[ast.expr, ...]") -> int:
        """Sums and products: the bits of all parts."""
        return sum(self.bits(part) for part in parts)

    def _power(self, base: ast.expr, exponent: ast.expr) -> int:
        """A power or a shift: of a symbol too, since torch computes its bounds."""
        at_most = _literal(exponent)
        if at_most is None or not 0 <= abs(at_most) <= MAX_EXPONENT:
            raise _huge(self._expression, self._where)
        self.bits(exponent)
        return max(1, self.bits(base)) * max(1, int(abs(at_most)))

    def _symbol(self, args: list[ast.expr], keywords: list[ast.keyword]) -> int:
        self._assumptions(keywords)
        match args:
            case [ast.Constant(value=str() as name)]:
                check_symbol(name, self._where)
                return 0
        return self._odd(args)

    def _number(self, name: str, args: list[ast.expr], keywords: list[ast.keyword]) -> int:
        """`Integer(4)`, `Rational(1, 2)`, `Float('0.5', precision=53)`."""
        if any(keyword.arg not in {"precision", "dps"} for keyword in keywords) or len(args) != (
            2 if name == "Rational" else 1
        ):
            self._odd(args)
        digits = [_literal(keyword.value) for keyword in keywords]
        if any(number is None or not 0 < number <= MAX_DIGITS for number in digits):
            raise _huge(self._expression, self._where)
        return sum(self._digits(value) for value in args)

    def _digits(self, value: ast.expr) -> int:
        """A number, or one spelled as a text."""
        match value:
            case ast.Constant(value=str() as text) if _DIGITS.fullmatch(text):
                return 64
        return self.bits(value)

    def _assumptions(self, keywords: list[ast.keyword]) -> None:
        for keyword in keywords:
            if keyword.arg not in _ASSUMPTIONS or not isinstance(keyword.value, ast.Constant):
                self._odd(keyword)


def _literal(node: ast.expr) -> int | float | None:
    """The number that stands in `node`, None where it is anything else."""
    match node:
        case ast.Constant(value=(int() | float()) as number):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _literal(operand)
            return None if inner is None else -inner
        case ast.Call(func=ast.Name(id="Float"), args=[ast.Constant(value=str() as text)]):
            return float(text) if _DIGITS.fullmatch(text) else None
        case ast.Call(func=ast.Name(id="Integer" | "Float"), args=[argument]):
            return _literal(argument)
        case ast.Call(func=ast.Name(id="Rational"), args=[first, second], keywords=[]):
            above, below = _literal(first), _literal(second)
            return above / below if above is not None and below else None
    return None
