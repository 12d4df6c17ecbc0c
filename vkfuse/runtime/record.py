"""The record of an operator: all that vkfuse knows of it, whoever asks."""

from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from vkfuse.runtime.axes import Axes
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.operands import Operands

Rule = Callable[[Operands], Iterator[Objection]]
Namer = Callable[[Operands], Iterator[str]]
Consumer = Literal["gather", "matmul", "convolve", "dequantize"]
Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableArguments:
    """How an operator reads a table: which arguments are its weight, scales and group size, empty for none.

    `also` are further constants of the table (zero points, sums). `bits` is of a packed weight, None for one as wide as
    its type; `layout` is the flag that tells the layouts of a packed weight apart. `turned` scales are [groups, rows].
    """

    consumer: Consumer
    weight: str = "weight"
    scales: str = ""
    also: tuple[str, ...] = ()
    group: str = ""
    bits: int | None = None
    layout: str = ""
    turned: bool = False


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator as the runtime has it.

    `arguments` are names in the schema's order, as far as any rule speaks of them; `constants` those that must be.
    `rules` say what the runtime refuses or gets wrong, `departs` where it may depart from torch for some values;
    calls that `carry` NaN and infinity do not do so by NOT_FINITE.
    `shaders` yields the names that a call asks for while it loads; None where they are not modelled. `integers`: right
    on integers and bools, or only carries them (measured); `compares`: right in the bools that it makes of floats.
    `axes` says which axes of the result vary with which of the arguments', None where that is not known. `resized`: follows
    dynamic sizes. `weighty`: what a delegate is for; `idle`: not worth a delegate by itself. `fusion` is
    upstream's pattern that makes the operator, where its result is right. `replaced`: renamed or fused by the backend's own
    passes before the runtime sees it. `numbers` are arguments that the runtime reads off a tensor when a call begins,
    outside of the delegate. An operator that changed has a record for the runtimes from `since` on and one up to `until`.
    """

    name: str
    arguments: str = ""
    _: KW_ONLY
    constants: str = ""
    rules: tuple[Rule, ...] = ()
    departs: tuple[Code, ...] = ()
    carry: Callable[[Operands], bool] | None = None
    shaders: Namer | None = None
    table: TableArguments | None = None
    integers: bool = False
    compares: bool = False
    axes: Axes | None = None
    resized: bool = True
    weighty: bool = False
    idle: bool = False
    fusion: str = ""
    replaced: bool = False
    numbers: str = ""
    since: Version = (0, 0, 0)
    until: Version = (99, 0, 0)

    def argument(self, position: int) -> str:
        """Name of the argument at a position of the schema."""
        names = self.arguments.split()
        return names[position] if position < len(names) else f"arg{position}"

    def position(self, argument: str) -> int | None:
        """Where an argument stands in the schema, None for none."""
        names = self.arguments.split()
        return names.index(argument) if argument in names else None
