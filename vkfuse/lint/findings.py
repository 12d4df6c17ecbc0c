"""What the judge found in a file: reasons why a runtime would fail, or compute something else."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from vkfuse.pte.place import Place

FindingKind = Literal["operator", "shader", "cpu-kernel", "format"]
FindingEffect = Literal["fails", "wrong", "note"]
EFFECTS: Final[tuple[FindingEffect, ...]] = get_args(FindingEffect)  # failures first


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
    effect: FindingEffect = "fails"
    operator: str = ""
