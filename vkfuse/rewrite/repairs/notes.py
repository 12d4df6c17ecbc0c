"""What a repair did, as data."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """One exact change to the graph: a stable `code`, the nodes, and what was done with them."""

    code: str
    nodes: tuple[str, ...]
    detail: str
