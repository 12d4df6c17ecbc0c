"""What a row of the table of unsupported inputs says: a program, and what vkfuse does with it."""

from dataclasses import dataclass

from programs import Build


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What becomes of a quantized weight; `reason` is the code of the refusal of the next better rung."""

    rung: str = "q4"
    how: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A program, its tables in the order of the report, and the largest error allowed, in shares of the largest value.

    `repairs` are codes that the report must name; `lengths` other shapes of the only input.
    """

    name: str
    build: Build
    tables: tuple[Table, ...] = (Table(),)
    bound: float = 0.0
    repairs: tuple[str, ...] = ()
    lengths: tuple[tuple[int, ...], ...] = ()
