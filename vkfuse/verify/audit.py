"""Every value of every quantized table in the file, read as its operator reads it, against the program's.

Outputs show only the rows that some input reached; this reads all of them, in blocks.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from operator import itemgetter
from typing import Any, Final

import torch
from torch.export import ExportedProgram

from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.prove import original_rows
from vkfuse.rewrite.survey import Consumer, Site, Table, survey
from vkfuse.verify.bounds import BLOCK_VALUES
from vkfuse.verify.steps import Step
from vkfuse.verify.verdict import TableCheck
from vkfuse.verify.vulkan.embedding import scaled, unpack_nibbles

_SIMILAR: Final = 0.9  # share of equal values from which two tables are meant to be one
_ROUNDED: Final = 2e-3  # twice the unit of half precision, of the largest value
_SAMPLES: Final = 4  # blocks of rows that are compared first
_SAMPLED_ROWS: Final = 16
_SAMPLED_COLUMNS: Final = 512
_PADDED_ROWS: Final = 8  # what packing pads to
_PADDED_COLUMNS: Final = 32
_VALUES: Final = "values"
_SCALES: Final = "scales"

Rows = Callable[[int, int], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A table by blocks of rows: [rows, columns]; `address` tells two in memory apart."""

    name: str
    where: str
    rows: int
    columns: int
    read: Rows
    address: int = 0


class TableReader:
    """Watches a run and collects the tables that its operators read."""

    def __init__(self) -> None:
        self._found: dict[tuple[Any, ...], Candidate] = {}

    def __call__(self, step: Step) -> None:
        """Look at one operator."""
        reader = _READERS.get(step.name)
        candidate = reader(step) if reader else None
        if candidate is not None:
            self._found.setdefault((step.name, candidate.address), candidate)

    @property
    def tables(self) -> tuple[Candidate, ...]:
        """The tables in the order of their first use."""
        return tuple(self._found.values())


def audit(tables: tuple[Candidate, ...], exported: ExportedProgram) -> Iterator[TableCheck]:
    """Yield a check of each table of the file for which the program has one of at most its size.

    A table that resembles none must be one of its size that no other table of the file resembles, up to rounding: what a
    half-precision program rounds, its file may not.
    """
    constants = Constants(exported)
    wanted = [
        candidate for table in survey(exported, constants) for candidate in _of_program(table, constants)
    ]
    samples = [_sample(candidate, candidate.rows) for candidate in wanted]
    matches = [(found, *_best(found, wanted, samples)) for found in tables]
    claimed = {wanted[best].name for _, best, share in matches if best is not None and share >= _SIMILAR}
    for found, best, share in matches:
        if best is None:
            continue
        if share >= _SIMILAR:
            yield _compared(found, wanted[best])
            continue
        left = [other for other in wanted if other.name not in claimed and _is_of_size(found, other)]
        yield (
            _compared(found, left[0])
            if left and not any(_is_near(found, o) for o in left)
            else _unlike(found)
        )


def _best(found: Candidate, wanted: list[Candidate], samples: list[torch.Tensor]) -> tuple[int | None, float]:
    """Place and share of equal values of the program's table that is most like one of the file, None where none fits."""
    read = cache(partial(_sample, found))
    likely = [
        (_equal_share(read(other.rows), sample), other.rows * other.columns, at)
        for at, (other, sample) in enumerate(zip(wanted, samples, strict=True))
        if other.rows <= found.rows and other.columns <= found.columns
    ]
    share, _, best = max(likely, key=itemgetter(0, 1), default=(0.0, 0, None))
    return best, share


def _is_of_size(found: Candidate, other: Candidate) -> bool:
    """Whether a table of the file is as large as one of the program's, but for padding."""
    rows, columns = found.rows - other.rows, found.columns - other.columns
    return (
        other.where not in {_VALUES, _SCALES} and 0 <= rows < _PADDED_ROWS and 0 <= columns < _PADDED_COLUMNS
    )


def _is_near(found: Candidate, other: Candidate) -> bool:
    """Whether two tables are the same up to the rounding of half precision."""
    ours, theirs = _sample(found, other.rows)[:, : other.columns].float(), _sample(other, other.rows).float()
    columns = theirs.shape[1]
    near = (ours[:, :columns] - theirs).abs() <= _ROUNDED * theirs.abs().max()
    return float(near.float().mean()) >= _SIMILAR


def _of_program(table: Table, constants: Constants) -> Iterator[Candidate]:
    """Yield the float rows of each site, and values and scales for those who gather them apart."""
    for site in table.sites:
        if site.grid is None or site.consumer is Consumer.OTHER:
            continue
        yield _candidate(table.name, site, original_rows(site, constants))
    grid = table.sites[0].grid
    if grid is not None:
        scales, values = grid.scales, grid.values
        yield Candidate(
            name=table.name,
            where=_VALUES,
            rows=grid.rows,
            columns=grid.columns,
            read=lambda low, high: values[low:high],
        )
        yield Candidate(
            name=table.name,
            where=_SCALES,
            rows=grid.rows,
            columns=scales.shape[1],
            read=lambda low, high: scales[low:high],
        )


def _candidate(name: str, site: Site, read: Rows) -> Candidate:
    rows, columns = (site.grid.rows, site.grid.columns) if site.grid else (0, 0)
    return Candidate(name=name, where=site.node.name, rows=rows, columns=columns, read=read)


def _sample(table: Candidate, rows: int) -> torch.Tensor:
    """Read some blocks of the first `rows` rows of a table: [sampled rows, sampled columns]."""
    lows = [max(0, (rows - _SAMPLED_ROWS) * place // (_SAMPLES - 1)) for place in range(_SAMPLES)]
    blocks = [table.read(low, min(low + _SAMPLED_ROWS, rows))[:, :_SAMPLED_COLUMNS] for low in lows]
    return torch.cat(blocks)


def _equal_share(found: torch.Tensor, other: torch.Tensor) -> float:
    """Share of equal values in two samples of the same rows; the first may be wider."""
    return float((found[:, : other.shape[1]] == other).float().mean()) if other.numel() else 0.0


def _compared(found: Candidate, other: Candidate) -> TableCheck:
    """Compare all rows; what the file has beyond the program's columns and rows is padding."""
    differing, largest, first = 0, 0.0, None
    step = max(1, BLOCK_VALUES // max(1, found.columns))
    for low in range(0, other.rows, step):
        high = min(low + step, other.rows)
        a, b = found.read(low, high)[:, : other.columns], other.read(low, high)
        unequal = a != b
        count = int(unequal.sum())
        if count:
            first = low + int(unequal.any(dim=1).nonzero()[0]) if first is None else first
            largest = max(largest, float((a.double() - b.double()).abs().max()))
        differing += count
    return TableCheck(
        operator=found.name,
        where=found.where,
        shape=(found.rows, found.columns),
        matches=other.name,
        values=other.rows * other.columns,
        differing=differing,
        max_abs=largest,
        first_row=first,
    )


def _unlike(found: Candidate) -> TableCheck:
    return TableCheck(
        operator=found.name,
        where=found.where,
        shape=(found.rows, found.columns),
        matches="",
        values=0,
        differing=0,
        max_abs=0.0,
        first_row=None,
    )


def _packed(step: Step, weight: Any, scales: Any, group_size: Any, *, low_first: bool) -> Candidate | None:
    """Return the float rows of a packed 4-bit table; `scales` are [rows, groups]."""
    if not isinstance(weight, torch.Tensor) or not isinstance(scales, torch.Tensor) or weight.dim() != 2:
        return None
    rows, columns = weight.shape[0], weight.shape[1] * 2
    if not isinstance(group_size, int) or group_size < 1 or scales.dim() != 2 or scales.shape[0] < rows:
        return None
    if columns == 0 or scales.shape[1] <= (columns - 1) // group_size:
        return None

    def read(low: int, high: int) -> torch.Tensor:
        values = unpack_nibbles(weight[low:high], low_first=low_first)
        return scaled(values, scales[low : min(high, rows)], group_size)

    return Candidate(
        name=step.name, where=step.where, rows=rows, columns=columns, read=read, address=weight.data_ptr()
    )


def _embedding_q4gsw(step: Step) -> Candidate | None:
    weight, scales, group_size, _, linear = step.inputs[:5]
    return _packed(step, weight, scales, group_size, low_first=bool(linear))


def _linear_q4gsw(step: Step) -> Candidate | None:
    _, weight, scales, group_size = step.inputs[:4]
    return _packed(step, weight, _turned(scales), group_size, low_first=True)


def _linear_dq8ca_q4gsw(step: Step) -> Candidate | None:
    weight, scales, group_size = step.inputs[3], step.inputs[5], step.inputs[6]
    return _packed(step, weight, _turned(scales), group_size, low_first=True)


def _turned(scales: Any) -> Any:
    """Return [groups, rows] as [rows, groups]."""
    return scales.t() if isinstance(scales, torch.Tensor) and scales.dim() == 2 else None


def _plain(step: Step) -> Candidate | None:
    """Return the table of a lookup that stores it as it is."""
    weight = step.inputs[0]
    if not isinstance(weight, torch.Tensor) or weight.dim() != 2:
        return None
    return Candidate(
        name=step.name,
        where=step.where,
        rows=weight.shape[0],
        columns=weight.shape[1],
        read=lambda low, high: weight[low:high],
        address=weight.data_ptr(),
    )


_READERS: Final[Mapping[str, Callable[[Step], Candidate | None]]] = {
    "et_vk.embedding_q4gsw.default": _embedding_q4gsw,
    "et_vk.linear_q4gsw.default": _linear_q4gsw,
    "et_vk.linear_dq8ca_q4gsw.default": _linear_dq8ca_q4gsw,
    "aten.embedding.default": _plain,
    "aten::embedding.out": _plain,
}
