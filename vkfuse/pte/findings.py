"""What reading a file turned up: bytes with labels, and reasons why a runtime would fail."""

from dataclasses import dataclass
from typing import Literal

from vkfuse.pte.place import Place

FindingKind = Literal["operator", "shader", "cpu-kernel", "format"]
Effect = Literal["fails", "wrong", "note"]
LedgerKind = Literal[
    "header", "program", "delegate", "constant", "shader", "named-data", "unreferenced", "padding"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """`bytes` of a file under a label, in `count` places; `kind` groups labels."""

    label: str
    kind: LedgerKind
    bytes: int
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One reason why a runtime fails on a file (`fails`), or computes something else (`wrong`).

    `name` is the operator, shader or field; `where` the delegate or method; `code` the stable reason;
    `operator` the Vulkan operator to keep off the delegate, if one is to blame. A `note` is what the runtime
    needs or does, and no fault.
    """

    kind: FindingKind
    name: str
    where: Place
    code: str
    hint: str
    effect: Effect = "fails"
    operator: str = ""
