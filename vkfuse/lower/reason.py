"""Why an operator is on the CPU."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a node is not delegated; `code` is stable."""

    code: str
    detail: str
