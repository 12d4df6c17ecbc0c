"""What a user may ask to lose: tables of floats as integers, and how."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from vkfuse.errors import VkfuseError
from vkfuse.typed import Typed, option

RULES: Final = ("signed", "torchao", "hqq", "q4_0")  # tables/quantize.py says what each is


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How floats become integers: `bits`, columns that share a scale (0: a whole row) and the rule that chooses scales."""

    bits: int
    group: int
    rule: str = RULES[0]

    @property
    def lowest(self) -> int:
        """The lowest integer."""
        return -(1 << (self.bits - 1))

    def __str__(self) -> str:
        group = f":{self.group}" if self.group else ""
        return f"int{self.bits}{group}{'' if self.rule == RULES[0] else ':' + self.rule}"

    def group_of(self, columns: int) -> int | None:
        """Columns of a group in rows of so many, None where groups do not divide them."""
        group = self.group or columns
        return group if columns % group == 0 else None


def parse_setting(text: str) -> Setting:
    """`int4:64`, `int4:32:torchao`, `int8`. ValueError says what is wrong."""
    found = re.fullmatch(r"int([48])(?::([1-9]\d*))?(?::(\w+))?", text)
    if found is None or (found[3] or RULES[0]) not in RULES:
        raise ValueError(
            f"{text!r} is no setting: write int4 or int8, perhaps :GROUP and :RULE ({', '.join(RULES)})"
        )
    return Setting(bits=int(found[1]), group=int(found[2] or 0), rule=found[3] or RULES[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The tables whose names a regular expression matches as a whole, and their setting."""

    pattern: str
    setting: Setting

    def __str__(self) -> str:
        return f"{self.pattern}={self.setting}"

    def takes(self, name: str) -> bool:
        """Whether a table is meant."""
        return re.fullmatch(self.pattern, name) is not None


def parse_choice(text: str) -> Choice:
    """`layers.*=int4:32`: what stands before the last `=` is a regular expression. ValueError."""
    pattern, given, setting = text.rpartition("=")
    if not (given and pattern):
        raise ValueError(f"{text!r} is no choice: write REGEX=SETTING, as in 'layers\\..*=int4:32'")
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    return Choice(pattern=pattern, setting=parse_setting(setting))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lossy(Typed):
    """What a run is asked to lose; nothing, unless said.

    `quantize_embedding` is the setting of all float tables that are looked up, `quantize` those of tables by name, of
    linears too, which go first. With `tie` a linear that reads the floats of such a lookup reads its integers.
    Raises VkfuseError for a value of another type.
    """

    quantize_embedding: Setting | None = field(
        default=None,
        metadata=option(
            "Quantize float tables that are looked up: int4:64, int4:32:torchao. Lossy.",
            metavar="SETTING",
            parse=parse_setting,
        ),
    )
    quantize: tuple[Choice, ...] = field(
        default=(),
        metadata=option(
            "The same of tables by name, of linears too: 'layers\\..*=int4:32'; as often as wanted. Lossy.",
            metavar="REGEX=SETTING",
            parse=parse_choice,
        ),
    )
    tie: bool = field(
        default=False,
        metadata=option("Let a linear with the floats of such a lookup read its integers. Lossy."),
    )

    @property
    def anything(self) -> bool:
        """Whether anything may be lost."""
        return self.quantize_embedding is not None or bool(self.quantize)

    def require(self, names: Iterable[str]) -> None:
        """Raise VkfuseError where what is asked for is none of the tables that were quantized, by their `names`."""
        made = [*names]
        idle = [f"--quantize {choice}" for choice in self.quantize if not any(map(choice.takes, made))]
        if idle or (self.quantize_embedding is not None and not made):
            raise VkfuseError(
                f"no table of floats is meant by {idle[0] if idle else '--quantize-embedding'}",
                hint="vkfuse inspect --what-if names the tables; a group must divide the columns of one",
            )

    def setting_of(self, name: str, *, looked_up: bool) -> Setting | None:
        """The setting of a float table, the last that takes it, None for none."""
        chosen = next((c.setting for c in reversed(self.quantize) if c.takes(name)), None)
        return chosen or (self.quantize_embedding if looked_up else None)
