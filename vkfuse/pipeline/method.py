"""One record a method: from its program to what the written bytes showed of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from torch.export import ExportedProgram

from vkfuse.lower.owned import StateOutsideError, StatePlace
from vkfuse.lower.state import buffers_of_several
from vkfuse.options import Options
from vkfuse.pipeline.proofs import Proved, prove_method
from vkfuse.program.load import Program
from vkfuse.pte.model import PteFile
from vkfuse.report.model import InputFile
from vkfuse.rewrite.decisions import apply
from vkfuse.rewrite.plan import Plans, before_fused_lookups, plan
from vkfuse.rewrite.repairs import Repaired, State, after_tables, before_survey, repair
from vkfuse.runtime.versions import Runtime, find_runtime
from vkfuse.verify.verdict import Verification

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method: its program as given, as the survey sees it, with a plan for each table, and as it is to be lowered.

    `prepared` is `surveyed` until the plans are applied; `proved` and `verification` are None until a file shows something.
    `state` is where the buffers are that it writes, once it is lowered.
    """

    name: str
    program: Program
    surveyed: Repaired
    prepared: Repaired
    plans: Plans = ()
    proved: Proved | None = None
    verification: Verification | None = None
    state: tuple[StatePlace, ...] = ()

    @property
    def input(self) -> InputFile | None:
        """The file that the program was read from, None for one in memory."""
        of = self.program
        return None if of.bytes is None else InputFile(path=of.name, bytes=of.bytes, sha256=of.sha256)


Methods = tuple[Method, ...]


def surveyed(programs: Mapping[str, Program], options: Options) -> Methods:
    """Each program as the survey sees it."""
    rules = before_survey(check_indices=options.check_indices)
    repaired = {name: repair(program.exported, rules) for name, program in programs.items()}
    return tuple(
        Method(name=name, program=program, surveyed=repaired[name], prepared=repaired[name])
        for name, program in programs.items()
    )


def planned(methods: Methods, runtime: Runtime, options: Options) -> Methods:
    """Each method with a plan for its tables."""
    exported = {m.name: m.surveyed.exported for m in methods}
    plans = plan(exported, runtime, options.vulkan)
    return tuple(replace(m, plans=plans[m.name]) for m in methods)


def folded(methods: Methods) -> Methods:
    """The methods as they were planned before there was a fused lookup."""
    return tuple(replace(m, plans=before_fused_lookups(m.surveyed.exported, m.plans)) for m in methods)


def prepared(methods: Methods, options: Options, *, in_place: bool = True, own_state: bool = True) -> Methods:
    """Each method with its plans applied, repaired.

    `in_place`: its caches are written in delegates; `own_state`: no program but these writes their buffers.
    """
    shared = buffers_of_several({m.name: m.surveyed.exported for m in methods})
    state = State.SHARED if shared or not own_state else State.IN_PLACE if in_place else State.OWN
    version = find_runtime(options.runtime).key
    rules = after_tables(half=options.vulkan.fp16, state=state, version=version)
    return tuple(replace(m, prepared=repair(apply(m.surveyed.exported, m.plans), rules)) for m in methods)


def made_of(methods: Methods, options: Options, make: Callable[[Methods], _Made]) -> _Made:
    """What `make` makes of the methods, prepared; their caches are written in place where that can be."""
    try:
        return make(prepared(methods, options))
    except StateOutsideError:
        return make(prepared(methods, options, in_place=False))


def proved(methods: Methods, pte: PteFile) -> Methods:
    """Each method with what a written file holds of its tables."""
    return tuple(replace(m, proved=prove_method(pte, m.name, m.surveyed.exported, m.plans)) for m in methods)


def as_given(methods: Methods) -> dict[str, ExportedProgram]:
    """The programs by the names of their methods."""
    return {m.name: m.program.exported for m in methods}


def to_lower(methods: Methods) -> dict[str, ExportedProgram]:
    """What is lowered, by the names of the methods."""
    return {m.name: m.prepared.exported for m in methods}
