"""What reading a file turned up: bytes with labels, and reasons why a runtime would fail."""

from dataclasses import dataclass
from typing import Literal

FindingKind = Literal["operator", "shader", "cpu-kernel", "format"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """`bytes` of a file under a label; `kind` groups labels."""

    label: str
    kind: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One reason why a runtime cannot load a file, or computes something else.

    `name` is the operator, shader or field; `where` the delegate or method; `code` the stable reason;
    `fatal` says that the file does not load (else: it loads and is wrong).
    """

    kind: FindingKind
    name: str
    where: str
    code: str
    hint: str
    fatal: bool = True
