"""What was proved of a table, or lost by it, as its report says it; read without numpy."""

from collections.abc import Iterable
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


def weakest(proofs: Iterable[Proof | None]) -> Proof | None:
    """Return that with the largest error; None where something has no proof, or there is nothing."""
    known: list[Proof] = []
    for proof in proofs:
        if proof is None:
            return None
        known.append(proof)
    return max(known, key=lambda proof: (proof.kind != "exact", proof.max_abs_error or 0.0), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What numbers lost: signal to noise in dB (infinite where nothing), cosine, and the largest absolute error."""

    sqnr_db: float
    cosine: float
    max_abs_error: float

    @property
    def relative_rms(self) -> float:
        """Root mean square of the errors, in shares of that of the numbers."""
        return float(10 ** (-self.sqnr_db / 20))


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """What a table would take in bytes, and lose, at a setting, and the option that would do it."""

    name: str
    setting: str
    before: int
    after: int
    loss: Loss
    option: str
