"""The faulty calls of a delegate, and the edits that mend them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

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

    def having(self, *codes: Code) -> Iterator[Fault]:
        """Yield the faults of some kinds."""
        yield from (fault for fault in self.faults if not fault.codes.isdisjoint(codes))

    @property
    def dynamic(self) -> bool:
        """Whether a size may be smaller in a run than the graph says."""
        return self.method.dynamic(self.delegate)

    def mended(self, fault: Fault, calls: Iterable[OperatorCall], *, code: str, detail: str = "") -> Mend:
        """Let calls run in place of a faulty one, whose operator is the detail unless there is another."""
        self.edit.instead(fault.position, calls)
        return Mend(code=code, where=self.place.at(fault.position), detail=detail or fault.call.name)

    def calls(self) -> list[tuple[int, DelegateCall]]:
        """The instructions that run the delegate."""
        return self.method.calls(self.delegate)


Mending = Callable[[Faulty], Iterator[Mend]]
