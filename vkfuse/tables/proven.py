"""What was proved of a table, as its report says it; read without numpy."""

from dataclasses import dataclass
from typing import Literal

ProofKind = Literal["exact", "rounded", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The table, rebuilt from the written bytes as the runtime reads them, against the one that the program computes.

    "exact": every bit is the same; "rounded": the largest error was measured; "none": the file has no bytes that could be
    compared, the error is None.
    """

    kind: ProofKind
    max_abs_error: float | None


EXACT = Proof(kind="exact", max_abs_error=0.0)
UNPROVED = Proof(kind="none", max_abs_error=None)
