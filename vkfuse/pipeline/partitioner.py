"""``vkfuse.Partitioner``: the plan, the tables and the repairs of ``optimize`` inside of anybody's export script.

It stands where VulkanPartitioner does. What takes the written file is not done there: it is not read back, so that nothing
is lowered again without what a runtime could not load, proved from its bytes, or verified. `vkfuse report` reads the file.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from torch.export import ExportedProgram

from vkfuse.errors import LoweringError, VkfuseError
from vkfuse.lower.guest import GuestPartitioner, border, operators
from vkfuse.lower.operands import Target
from vkfuse.lower.owned import StatePlace, place_notes
from vkfuse.lower.state import buffers_of_several, state_notes
from vkfuse.options import BaselineChoice, Compute, Options
from vkfuse.output import Publication, write
from vkfuse.pipeline.assembly import report_of_plan
from vkfuse.pipeline.method import Methods, as_given, planned, prepared, surveyed, to_lower
from vkfuse.pipeline.verification import precision
from vkfuse.program.load import from_exported, widened
from vkfuse.program.methods import METHOD
from vkfuse.report.cost import Meter
from vkfuse.report.format import SUFFIXES, Format
from vkfuse.report.model import CpuOperator, Delegation
from vkfuse.report.render import rendered
from vkfuse.runtime.codes import Objection
from vkfuse.runtime.versions import find_runtime

_NOTE: Final = (
    "lowered by another script: the file was not read back, nothing was lowered again, tables were proved before they were "
    "written and not from the file, and no call was compared; `vkfuse report FILE` judges the file"
)
_DECOMPOSED: Final = (
    "the program was decomposed before the partitioner saw it (to_backend): nothing was rewritten, no table "
    "packed"
)


class Partitioner(GuestPartitioner):
    """A drop-in for ExecuTorch's VulkanPartitioner in ``to_edge_transform_and_lower``.

    Takes the options of ``vkfuse.optimize`` by name, but for those about the file: gates, baseline. `report` is a path, its
    format by the suffix. `shared_state` says whether the methods of several programs write the same memory
    (``MemoryPlanningPass(share_mutable_buffers=True)``); it need be said only where they have buffers in common. `in_place`
    writes caches within delegates, and where none can write a cache the lowering fails and says so.
    """

    def __init__(
        self,
        options: Options | None = None,
        *,
        report: Path | str | None = None,
        shared_state: bool | None = None,
        in_place: bool = True,
        **changes: Any,
    ) -> None:
        self._options = _checked((options or Options(baseline=BaselineChoice.NONE)).changed(changes))
        self._runtime = find_runtime(self._options.runtime)
        self._report = None if report is None else Path(report)
        self._shared_state, self._in_place, self._meter = shared_state, in_place, Meter()
        self._methods: Methods = ()
        self._placed: list[Delegation] = []
        super().__init__(self._options.vulkan, Target(runtime=self._runtime))

    def prepare(self, exported: ExportedProgram) -> ExportedProgram:
        """Plan and rewrite a program: tables packed, what the runtime lacks written out. LoweringError."""
        name = METHOD if not self._methods else f"program {len(self._methods) + 1}"
        given = from_exported(exported, name)
        program = given if self._options.compute is Compute.GIVEN else widened(given)
        one = planned(surveyed({name: program}, self._options), self._runtime, self._options)
        (method,) = prepared(one, self._options, in_place=self._in_place, own_state=not self._shared_state)
        self._methods = (*self._methods, method)
        self._check_state()
        return method.prepared.exported

    def shared(self) -> Collection[str]:
        """Buffers of several programs, where they are the same memory."""
        return buffers_of_several(as_given(self._methods)) if self._shared_state else ()

    def partitioned(
        self,
        exported: ExportedProgram,
        reasons: Mapping[str, Objection],
        tags: Collection[str],
        state: tuple[StatePlace, ...],
    ) -> None:
        """Write the report once all programs are partitioned."""
        at = len(self._placed)
        self._methods = tuple(replace(m, state=state) if i == at else m for i, m in enumerate(self._methods))
        left = operators(exported, None)
        cpu = {name: _kept(count, reasons.get(name)) for name, count in left.items()}
        self._placed.append(
            Delegation(
                subgraphs=len(tags),
                crossings=border(exported, tags),
                vulkan=operators(exported, tags),
                cpu=cpu,
                backends={"VulkanBackend": len(tags)},
            )
        )
        if self._report is not None and len(self._placed) >= len(self._methods):
            self._write(self._report)

    def _write(self, path: Path) -> None:
        made = report_of_plan(self._methods, (), self._runtime, self._meter)
        report = replace(made, delegation=_together(self._placed), notes=(*self._notes(),))
        text = rendered(report, SUFFIXES.get(path.suffix, Format.TEXT))
        with Publication() as publication:
            write(publication.file(path, "report"), lambda stream: stream.write(text.encode()), path)

    def _notes(self) -> Iterator[str]:
        """What the report says of the lowering, of state, and of types."""
        yield _NOTE
        if not self._methods:
            yield _DECOMPOSED
        if self._shared_state:
            yield from state_notes(as_given(self._methods), to_lower(self._methods))
        yield from place_notes({m.name: m.state for m in self._methods})
        yield from precision(self._methods)

    def _check_state(self) -> None:
        """Refuse several programs of the same state where nobody said whether it is one memory. LoweringError."""
        several = buffers_of_several(as_given(self._methods))
        if several and self._shared_state is None:
            raise LoweringError(
                f"several programs have the buffer {min(several)}, and it is not known whether they share its memory",
                hint="Partitioner(shared_state=True) where share_mutable_buffers is set, else shared_state=False",
            )


def _checked(options: Options) -> Options:
    """Refuse options about the file, which a partitioner never sees. VkfuseError."""
    if options.gates != Options().gates:
        raise VkfuseError(
            "a partitioner writes no file to check", hint="vkfuse report FILE takes the same checks"
        )
    return options


def _kept(count: int, reason: Objection | None) -> CpuOperator:
    if reason is None:
        return CpuOperator(count=count)
    return CpuOperator(count=count, reason=str(reason.code), detail=reason.detail)


def _together(placed: list[Delegation]) -> Delegation:
    """All programs as one."""
    whole = placed[0]
    for more in placed[1:]:
        whole = Delegation(
            subgraphs=whole.subgraphs + more.subgraphs,
            crossings=whole.crossings + more.crossings,
            vulkan={
                n: whole.vulkan.get(n, 0) + more.vulkan.get(n, 0) for n in {**whole.vulkan, **more.vulkan}
            },
            cpu={**more.cpu, **whole.cpu},
            backends={"VulkanBackend": whole.subgraphs + more.subgraphs},
        )
    return whole
