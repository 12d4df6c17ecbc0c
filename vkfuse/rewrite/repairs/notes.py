"""What a repair is, and what it did, as data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch.export import ExportedProgram


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """One exact change to the graph: a stable `code`, the nodes, and what was done with them."""

    code: str
    nodes: tuple[str, ...]
    detail: str


Repairs: TypeAlias = tuple[ExportedProgram, tuple[Repair, ...]]
RepairRule: TypeAlias = Callable[[ExportedProgram], Repairs]
