"""What a user asks of a file: data, read from the command line, a file of settings or Python; `report.checks` answers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from vkfuse.errors import VkfuseError
from vkfuse.quantities import parse_size
from vkfuse.typed import Typed, option


class Requirement(StrEnum):
    """What a file can be required to be."""

    FUSED = "fused"
    DELEGATED = "delegated"
    LOADABLE = "loadable"
    VERIFIED = "verified"


@dataclass(frozen=True, slots=True)
class Growth:
    """The most that something may grow, in percent of what it was or in bytes; below zero it must shrink."""

    amount: float
    unit: Literal["%", "bytes"]

    def __str__(self) -> str:
        """As it was written: `1%`, `512000`."""
        return f"{self.amount:g}%" if self.unit == "%" else f"{self.amount:.0f}"


def parse_growth(text: str) -> Growth:
    """Read `1%`, `500KiB`, `-10%`, `0`. ValueError."""
    sign, size = (-1, text[1:]) if text.startswith("-") else (1, text)
    try:
        if size.endswith("%"):
            return Growth(sign * _number(size[:-1]), "%")
        return Growth(sign * (0 if size == "0" else parse_size(size)), "bytes")
    except ValueError as error:
        raise ValueError(f"{text!r} is no growth: write 1%, 500KiB, or -10% to ask for less") from error


def _number(text: str) -> float:
    """Read plain digits. ValueError for what else Python reads as a number."""
    if not text.replace(".", "", 1).isdecimal() or not text.isascii():
        raise ValueError(text)
    return float(text)


def labelled(texts: Iterable[str]) -> dict[str, str]:
    """Read `LABEL=1%` each. VkfuseError."""
    parts = [text.rpartition("=") for text in texts]
    for label, _, limit in parts:
        if not label:
            raise VkfuseError(f"{limit!r} has no label", hint="write LABEL=1% or LABEL=500KiB")
    return {label: limit for label, _, limit in parts}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates(Typed):
    """Checks of a file: it fails where one of them does. Sizes and growth may be given as text.

    `max_size` in bytes; `max_growth`, and `max_growth_of` labels, since the file before; `forbid_cpu_op` has patterns of
    kernels; `exact`: every table is the program's, bit for bit; `exit_code`: the file is the one before, byte for byte.
    Raises VkfuseError for a value of another type.
    """

    max_size: int | None = field(
        default=None, metadata=option("Fail a larger file: 350MiB.", metavar="SIZE", parse=parse_size)
    )
    max_growth: Growth | None = field(
        default=None,
        metadata=option(
            "Fail a file that grew more since the one before: 1%, 500KiB, 0, -10%.",
            metavar="GROWTH",
            parse=parse_growth,
        ),
    )
    max_growth_of: Mapping[str, Growth] = field(
        default_factory=dict,
        metadata=option(
            "The same of a kind of bytes, a label or a table, with * and ?; as often as wanted.",
            metavar="LABEL=GROWTH",
            parse=parse_growth,
            read=labelled,
        ),
    )
    require: tuple[Requirement, ...] = field(
        default=(), metadata=option("Fail a file that is not; as often as wanted.")
    )
    forbid_cpu_op: tuple[str, ...] = field(
        default=(),
        metadata=option(
            "Fail a file that calls such a kernel on the CPU: 'aten::embedding*'; as often as wanted.",
            metavar="GLOB",
        ),
    )
    exact: bool = field(
        default=False, metadata=option("Fail a file with a table that is not the program's, bit for bit.")
    )
    exit_code: bool = field(default=False, metadata=option("Fail a file that differs from the one before."))

    def __post_init__(self) -> None:
        """Raise VkfuseError for a value of another type, and for one that no file passes or none fails."""
        Typed.__post_init__(self)
        if self.max_size is not None and self.max_size < 1:
            raise VkfuseError(f"the option max-size is {self.max_size}", hint="give 1 byte or more")
        if "" in self.forbid_cpu_op:
            raise VkfuseError(
                "the option forbid-cpu-op has an empty pattern", hint="give a name: 'aten::add*'"
            )

    def check_possible(self, obstacles: Mapping[str, str]) -> None:
        """Refuse what a run could only answer with "not checked". VkfuseError.

        `obstacles` are reasons by what a gate needs: "before", a file to compare with; "verified", a run; "exact", proofs.
        """
        asked = {
            "max-growth": ("before", self.max_growth is not None),
            "max-growth-of": ("before", bool(self.max_growth_of)),
            "exit-code": ("before", self.exit_code),
            "require verified": ("verified", Requirement.VERIFIED in self.require),
            "exact": ("exact", self.exact),
        }
        for name, (need, wanted) in asked.items():
            if wanted and need in obstacles:
                raise VkfuseError(f"--{name} cannot be answered", hint=obstacles[need])
