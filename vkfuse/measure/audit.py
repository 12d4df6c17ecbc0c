"""Every value of every quantized table in the file, read as its operator reads it, against the program's.

Outputs show only the rows that some input reached; this reads all of them, in blocks.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from vkfuse.measure.stored import Stored, gathered
from vkfuse.pte.enums import ScalarType
from vkfuse.tables.floats import Array, is_float, rounded
from vkfuse.tables.proof import Difference, Rows, Within, difference, equal

_SIMILAR: Final = 0.9  # share of equal values from which two tables are meant to be one
_SAMPLES: Final = 4  # blocks of rows that are compared first
_SAMPLED_ROWS: Final = 16
_SAMPLED_COLUMNS: Final = 512
_PADDED_ROWS: Final = 8  # what packing pads to
_PADDED_COLUMNS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A table of the program, [rows, columns] of `kind`; `open` evaluates it and returns its rows by blocks.

    `part` is empty for float rows, else what of them it is: values, scales or zero points, which only a lookup reads.
    """

    name: str
    consumer: str
    rows: int
    columns: int
    open: Callable[[], Rows]
    kind: ScalarType
    part: str = ""

    @property
    def is_float(self) -> bool:
        """Whether it has floats."""
        return is_float(self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCheck:
    """A table of the file, read whole as its operator reads it, against the program's that it matches.

    `differing` of `values` differ, the first in row `first_row`, and `rounded` by no more than the types make that the file
    stores; `max_abs` is the largest difference of all. `matches` is empty where none is similar.
    """

    operator: str
    where: str
    shape: tuple[int, ...]
    matches: str
    values: int = 0
    differing: int = 0
    rounded: int = 0
    max_abs: float = 0.0
    first_row: int | None = None

    @property
    def passed(self) -> bool:
        """Whether the table is a table of the program, value for value but for rounding, or unlike all of them."""
        return self.differing == 0 or not self.matches

    @property
    def difference(self) -> str:
        """How much is not the program's, in words."""
        return f"{self.differing} of {self.values} values of {self.matches} differ in the file"


def audit(stored: Iterable[Stored], wanted: Iterable[Wanted]) -> Iterator[TableCheck]:
    """Yield a check of each table of the file against the program's that is read there.

    A table of the file is the program's that it resembles. One that resembles none stands where the program reads a table
    of that size in the same way and the file has none like it: of several, in the order of use.
    """
    of_file, of_program = list(stored), list(wanted)
    samples = [_sample(other.open(), other.rows) for other in of_program]
    matches = [(found, _alike(found, of_program, samples)) for found in of_file]
    claimed = {_use(other) for _, other in matches if other is not None}
    left = [other for other in of_program if _use(other) not in claimed]
    for found, other in matches:
        place = other or next((other for other in left if _may_stand_for(found, other)), None)
        if other is None and place is not None:
            left = [other for other in left if _use(other) != _use(place)]
        if place is None:
            yield unlike(found)
            continue
        result = compared(found, place)
        if place.part and result.differing:
            of_table = [other for other in of_program if other.name == place.name]
            result = _rows_made(found, of_file, of_table) or result
        yield check(found, place, result)


def _rows_made(part: Stored, of_file: Sequence[Stored], wanted: Sequence[Wanted]) -> Difference | None:
    """Compare the rows that a part of another grid makes with others of the file; None unless they are the program's.

    A group whose integers are all even has two grids, and a file whose rows were found from floats may have either.
    """
    raw = [table for table in of_file if table.raw]
    values = [part] if not part.is_float else [table for table in raw if not table.is_float]
    scales = [part] if part.is_float else [table for table in raw if table.is_float]
    made = [gathered(whole, by, None) for whole in values for by in scales if by.columns < whole.columns]
    results = (
        compared(table, other)
        for table in made
        for other in wanted
        if table is not None and not other.part and (table.rows, table.columns) == (other.rows, other.columns)
    )
    return next((result for result in results if result.differing == 0), None)


def _use(other: Wanted) -> tuple[str, str]:
    """What a file stores once: a table as one kind of operator reads it."""
    return other.name, other.consumer


def compared(found: Stored, other: Wanted) -> Difference:
    """Compare all rows; what the file has beyond the program's columns and rows is padding."""
    wanted = other.open()
    within = found.within(other.kind)
    return difference(wanted, _as(found, other), other.rows, found.columns, within=within)


def _as(found: Stored, other: Wanted) -> Rows:
    """Return the rows of a stored table in the program's type, which it computes with, without padding."""
    return lambda low, high: rounded(found.read(low, high)[:, : other.columns], other.kind)


def resembling(stored: Iterable[Stored], other: Wanted) -> Iterator[Stored]:
    """Yield the tables of the file that resemble one of the program."""
    sample: list[Array] = []
    for found in stored:
        if not sample:  # only where there is something to compare: evaluating a table may take its size
            sample.append(_sample(other.open(), other.rows))
        if _alike(found, (other,), sample) is not None:
            yield found


def _alike(found: Stored, wanted: Sequence[Wanted], samples: Sequence[Array]) -> Wanted | None:
    """Return the program's table that one of the file resembles most; of equal ones the largest that is read alike."""
    read: dict[int, Array] = {}
    best, rank = None, (_SIMILAR, 0, False)
    for other, sample in zip(wanted, samples, strict=True):
        if other.rows > found.rows or other.columns > found.columns or not _comparable(found, other):
            continue
        ours = read.setdefault(other.rows, _sample(found.read, other.rows))
        share = _share(rounded(ours[:, : sample.shape[1]], other.kind), sample, found.within(other.kind))
        if (share, other.rows * other.columns, other.consumer == found.consumer) > rank:
            best, rank = other, (share, other.rows * other.columns, other.consumer == found.consumer)
    return best


def _comparable(found: Stored, other: Wanted) -> bool:
    """Whether a table of the file can be one of the program's: integers are no float rows, a pack is no part of a table."""
    return (found.is_float or not other.is_float) and (found.raw or not other.part)


def _share(ours: Array, theirs: Array, within: Within) -> float:
    """Share of the values of two samples that may be the same."""
    return float((equal(ours, theirs) | within(ours, theirs)).mean()) if theirs.size else 0.0


def _sample(read: Rows, rows: int) -> Array:
    """Read some blocks of the first `rows` rows of a table: [sampled rows, sampled columns]."""
    lows = [max(0, (rows - _SAMPLED_ROWS) * place // (_SAMPLES - 1)) for place in range(_SAMPLES)]
    return np.concatenate([read(low, min(low + _SAMPLED_ROWS, rows))[:, :_SAMPLED_COLUMNS] for low in lows])


def _may_stand_for(found: Stored, other: Wanted) -> bool:
    """Whether a table of the file is read as one of the program's is, and as large but for padding."""
    rows, columns = found.rows - other.rows, found.columns - other.columns
    return (
        found.consumer == other.consumer
        and found.is_float == other.is_float
        and (found.raw or not other.part)
        and 0 <= rows < _PADDED_ROWS
        and 0 <= columns < _PADDED_COLUMNS
    )


def check(found: Stored, other: Wanted, result: Difference) -> TableCheck:
    """Return what comparing a table of the file with the program's gave."""
    return TableCheck(
        operator=found.operator,
        where=found.where,
        shape=(found.rows, found.columns),
        matches=other.name,
        values=other.rows * other.columns,
        differing=result.differing,
        rounded=result.rounded,
        max_abs=result.largest,
        first_row=result.first_row,
    )


def unlike(found: Stored) -> TableCheck:
    """Return that a table of the file is like none of the program's."""
    return TableCheck(
        operator=found.operator, where=found.where, shape=(found.rows, found.columns), matches=""
    )
