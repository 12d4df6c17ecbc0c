"""The faulty calls of a delegate, and the edits that mend them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps

from vkfuse.measure.tables import TableRead
from vkfuse.patch.graphs import GraphEdit
from vkfuse.patch.methods import MethodEdit
from vkfuse.pte.model import DelegateCall, PteFile
from vkfuse.pte.place import Place
from vkfuse.pte.vulkan import OperatorCall, VulkanGraph
from vkfuse.runtime.codes import Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Mend:
    """What was mended: a stable `code`, the call or the delegate, and what was done."""

    code: str
    where: Place
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A call of a delegate, and what the runtime fails on or gets wrong in it."""

    position: int
    call: OperatorCall
    codes: frozenset[Code]


@dataclass(frozen=True, slots=True, kw_only=True)
class Faulty:
    """A delegate with faults, in a method that is being edited; `reads` are the reads of tables of the `file`."""

    file: PteFile
    method: MethodEdit
    place: Place
    faults: tuple[Fault, ...]
    reads: Mapping[Place, TableRead]

    @property
    def delegate(self) -> int:
        """Number of the delegate in its method."""
        if self.place.delegate is None:
            raise TypeError(f"{self.place} is no delegate")
        return self.place.delegate

    @property
    def graph(self) -> VulkanGraph:
        """Its graph as it was."""
        return self.method.graph(self.delegate)

    @property
    def edit(self) -> GraphEdit:
        """The edits of its graph."""
        return self.method.edit(self.delegate)

    @property
    def dynamic(self) -> bool:
        """Whether a size may be smaller in a run than the graph says."""
        return self.method.dynamic(self.delegate)

    def read(self, fault: Fault) -> TableRead | None:
        """What a faulty call reads of a table."""
        return self.reads.get(self.place.at(fault.position))

    def calls(self) -> list[tuple[int, DelegateCall]]:
        """The instructions that run the delegate."""
        return self.method.calls(self.delegate)


Mending = Callable[[Faulty], Iterator[Mend]]
Instead = Callable[[Faulty, Fault], Sequence[OperatorCall]]


def mends(*codes: Code, code: str, detail: str = "{name}") -> Callable[[Instead], Mending]:
    """Make a mending of what mends one fault: a function that gets those of `codes`, and gives the calls in its place.

    It gives none where it has no others. In `detail` stand the faulty call's `name` and the `read` of its table.
    """

    def mending_of(instead: Instead) -> Mending:
        @wraps(instead)
        def mending(faulty: Faulty) -> Iterator[Mend]:
            for fault in faulty.faults:
                calls = () if fault.codes.isdisjoint(codes) else instead(faulty, fault)
                if calls:
                    faulty.edit.instead(fault.position, calls)
                    told = detail.format(name=fault.call.name, read=faulty.read(fault))
                    yield Mend(code=code, where=faulty.place.at(fault.position), detail=told)

        return mending

    return mending_of
