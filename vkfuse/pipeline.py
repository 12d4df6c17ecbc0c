"""The order of the stages: load, plan, rewrite, lower, read back, compare, report. Prints nothing."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from vkfuse.cost import Meter
from vkfuse.errors import LoweringError
from vkfuse.lower.loadable import lower_loadable
from vkfuse.lower.lowering import Lowered, lower, lower_stock
from vkfuse.lower.operands import Limits
from vkfuse.lower.quiet import quiet
from vkfuse.lower.state import state_notes
from vkfuse.mapping import map_open
from vkfuse.options import BaselineChoice, Options, Progress
from vkfuse.output import Publication, scratch, write
from vkfuse.program.check import Checked
from vkfuse.program.load import Program, from_exported, load
from vkfuse.program.methods import METHOD, checked_methods
from vkfuse.proofs import Proved, proofs_of, prove_file
from vkfuse.pte import read_pte
from vkfuse.pte.model import PteFile
from vkfuse.pte.reader import parse_pte
from vkfuse.report.build import Measured, baseline_of, describe_output, measure
from vkfuse.report.diff import diff_of
from vkfuse.report.model import Baseline, BaselineKind, Diff, InputFile, MethodRow, RepairRow, Report
from vkfuse.rewrite.apply import apply
from vkfuse.rewrite.plan import Plans, before_fused_lookups, plan
from vkfuse.rewrite.repairs import BEFORE_SURVEY, Repaired, after_tables, repair
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.operators.lookup import PLAIN
from vkfuse.runtime.versions import Runtime, find_runtime
from vkfuse.tables import named_lookups, table_rows
from vkfuse.verified import deviations, together, verify_methods, verify_row
from vkfuse.verify.verdict import Verification

Source = Path | str | Checked | ExportedProgram

_ON_CPU = {PLAIN: Objection(Code.BASELINE, "before the fused lookup it ran on the CPU")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run made: the report and, of `optimize`, the path that was written."""

    report: Report
    output: Path | None


def optimize(
    source: Source | Mapping[str, Source],
    output: Path | str,
    options: Options | None = None,
    *,
    progress: Progress = lambda _stage: None,
    into: Path | None = None,
    **changes: Any,
) -> Result:
    """Turn a .pt2, or an exported program in memory, into a loadable Vulkan .pte at `output`.

    A mapping gives several programs by the names of their methods; what they share is stored once. A program by itself
    is the method "forward". `changes` are options by name, as in ``optimize(program, "model.pte", runtime="1.4")``.

    Raises InputError, UnsafePickleError, OutputError, LoweringError, and CheckFailedError where the file's own bytes
    compute something else than the program; then `output` is what it was before. A caller that publishes the file itself,
    together with others, writes it `into` a temporary of its own.
    """
    chosen, meter, target = (options or Options()).changed(changes), Meter(), Path(output)
    runtime = find_runtime(chosen.runtime)
    given = (
        None
        if isinstance(chosen.baseline, BaselineChoice)
        else measure(read_pte(chosen.baseline), chosen.runtime)
    )
    with _published(into, target, source, chosen) as temporary:
        programs = _programs(source, chosen, progress)
        with quiet(verbose=chosen.verbose):
            surveyed, plans = _plan(programs, runtime, chosen, progress)
            prepared = _prepare(surveyed, plans, chosen)
            after = _write_loadable(_exported(prepared), temporary, target, chosen, progress)
            proved = prove_file(after.pte, _exported(surveyed), plans)
            verifications = _verify(temporary, programs, proved, chosen, progress)
            before = (
                _before(programs, surveyed, plans, chosen, progress) if given is None else _of_file(given)
            )
        methods = _method_rows(programs, after, verifications, chosen)
        report = Report(
            runtime=runtime.version,
            input=_inputs(programs),
            output=describe_output(after.pte, str(target)),
            baseline=before.baseline,
            methods=methods,
            delegation=after.delegation,
            loadable=after.loadable,
            tables=table_rows(plans, before.plans, proofs_of(proved.values())),
            lookups=named_lookups(after.lookups, plans),
            shaders=after.shaders,
            repairs=tuple(_repair_rows(surveyed, prepared)),
            verify=together(row.verify for row in methods if row.verify is not None),
            cost=meter.cost(),
            ledger=after.ledger,
            diff=None if before.measured is None else _diff(after, before.measured),
            notes=(
                *((runtime.note,) if runtime.note else ()),
                *state_notes(_exported(programs), _exported(prepared)),
                *deviations(verifications.values()),
            ),
        )
    return Result(report=report, output=target)


@contextlib.contextmanager
def _published(
    into: Path | None, target: Path, source: Source | Mapping[str, Source], options: Options
) -> Iterator[Path]:
    """The file to write: `into`, which the caller publishes, or one that becomes `target` at the end."""
    if into is not None:
        yield into
        return
    sources = source.values() if isinstance(source, Mapping) else [source]
    baselines = [] if isinstance(options.baseline, BaselineChoice) else [options.baseline]
    with Publication() as publication:
        for path in (read for read in [*sources, *baselines] if isinstance(read, Path | str)):
            publication.reads("input", Path(path))
        yield publication.file(target, "output")


def inspect(
    source: Source | Mapping[str, Source],
    options: Options | None = None,
    *,
    progress: Progress = lambda _stage: None,
    **changes: Any,
) -> Result:
    """The plan for one program or several without lowering: each table, its verdict and what it would take."""
    chosen, meter = (options or Options()).changed(changes), Meter()
    runtime = find_runtime(chosen.runtime)
    programs = _programs(source, chosen, progress)
    with quiet(verbose=chosen.verbose):
        surveyed, plans = _plan(programs, runtime, chosen, progress)
        before = _without_fused_lookups(surveyed, plans)
    report = Report(
        runtime=runtime.version,
        input=_inputs(programs),
        methods=tuple(MethodRow(name=name, input=_input(program)) for name, program in programs.items()),
        tables=table_rows(plans, before),
        cost=meter.cost(),
    )
    return Result(report=report, output=None)


def _programs(
    source: Source | Mapping[str, Source], options: Options, progress: Progress
) -> dict[str, Program]:
    """Each method's program, in the order given."""
    sources = checked_methods(source if isinstance(source, Mapping) else {METHOD: source})
    progress("loading")
    with quiet(verbose=options.verbose):
        return {name: _program(of, options) for name, of in sources.items()}


def _program(source: Source, options: Options) -> Program:
    if isinstance(source, ExportedProgram):
        return from_exported(source)
    of = source if isinstance(source, Checked) else Path(source)
    return load(of, allow_pickle=options.allow_pickle, max_memory=options.max_memory)


def _input(program: Program) -> InputFile | None:
    return None if program.bytes is None else InputFile(path=program.name, bytes=program.bytes)


def _inputs(programs: Mapping[str, Program]) -> InputFile | None:
    """The files that programs were read from, as one: paths and the sum of bytes; None for programs in memory."""
    files = [file for program in programs.values() if (file := _input(program)) is not None]
    if not files:
        return None
    return InputFile(path=", ".join(f.path for f in files), bytes=sum(f.bytes for f in files))


def _plan(
    programs: Mapping[str, Program], runtime: Runtime, options: Options, progress: Progress
) -> tuple[dict[str, Repaired], dict[str, Plans]]:
    """Each program as the survey sees it, and the plan for its tables."""
    progress("planning")
    surveyed = {name: repair(program.exported, BEFORE_SURVEY) for name, program in programs.items()}
    return surveyed, plan(_exported(surveyed), runtime, options.vulkan.lookup_layout)


def _prepare(
    surveyed: Mapping[str, Repaired], plans: Mapping[str, Plans], options: Options
) -> dict[str, Repaired]:
    rules = after_tables(half=options.vulkan.fp16)
    return {name: repair(apply(of.exported, plans[name]), rules) for name, of in surveyed.items()}


def _without_fused_lookups(surveyed: Mapping[str, Repaired], plans: Mapping[str, Plans]) -> dict[str, Plans]:
    return {name: before_fused_lookups(of.exported, plans[name]) for name, of in surveyed.items()}


def _exported(methods: Mapping[str, Program] | Mapping[str, Repaired]) -> dict[str, ExportedProgram]:
    return {name: of.exported for name, of in methods.items()}


def _write_loadable(
    methods: Mapping[str, ExportedProgram],
    temporary: Path,
    target: Path,
    options: Options,
    progress: Progress,
) -> Measured:
    """Lower, write and read back until the runtime can load the file.

    Raises LoweringError that names what is left.
    """

    def written(lowered: Lowered) -> PteFile:
        write(temporary, lowered.write, target)
        return read_pte(temporary)

    lowered, pte = lower_loadable(methods, options, written, progress)
    return measure(pte, options.runtime, reasons=lowered.reasons)


def _diff(after: Measured, before: Measured) -> Diff:
    """What changed in the files; tables have rows of their own, by name."""
    return dataclasses.replace(diff_of(after, before), tables=())


def _repair_rows(*stages: Mapping[str, Repaired]) -> Iterator[RepairRow]:
    """A row for each node that a repair changed."""
    for stage in stages:
        for method, repaired in stage.items():
            for made in repaired.repairs:
                for node in made.nodes:
                    yield RepairRow(code=made.code, node=node, detail=made.detail, method=method)


def _verify(
    written: Path,
    programs: Mapping[str, Program],
    proved: Mapping[str, Proved],
    options: Options,
    progress: Progress,
) -> dict[str, Verification]:
    """Each method's verification, where it was asked for and possible. Raises CheckFailedError."""
    if not options.verify or all(program.example_inputs is None for program in programs.values()):
        return {}
    progress("verifying")
    return verify_methods(written, programs, proved, options)


def _method_rows(
    programs: Mapping[str, Program],
    after: Measured,
    verifications: Mapping[str, Verification],
    options: Options,
) -> tuple[MethodRow, ...]:
    """A row for each method, in the order given."""
    written = {row.name: row for row in after.methods}
    return tuple(
        dataclasses.replace(
            written[name],
            input=_input(program),
            verify=verify_row(program, verifications.get(name), options),
        )
        for name, program in programs.items()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Before:
    """The file before: what the report says of it, its measures, and the plan that it follows where there is one."""

    baseline: Baseline
    measured: Measured | None = None
    plans: Mapping[str, Plans] = field(default_factory=dict)


def _of_file(given: Measured) -> _Before:
    return _Before(baseline=baseline_of("file", given), measured=given)


def _before(
    programs: Mapping[str, Program],
    surveyed: Mapping[str, Repaired],
    plans: Mapping[str, Plans],
    options: Options,
    progress: Progress,
) -> _Before:
    """The file that the choice of a baseline names, made and measured."""
    if options.baseline is BaselineChoice.NONE:
        return _Before(baseline=Baseline(kind="none", bytes=None, loadable=None))
    progress(f"lowering the {options.baseline} baseline")
    if options.baseline is BaselineChoice.STOCK:
        return _written("stock", lambda: lower_stock(_exported(programs), options.vulkan), {}, options)
    folded = _without_fused_lookups(surveyed, plans)
    limits = Limits(runtime=find_runtime(options.runtime), kept_off=_ON_CPU)
    methods = _exported(_prepare(surveyed, folded, options))
    return _written("folded", lambda: lower(methods, limits, options.vulkan), folded, options)


def _written(
    kind: BaselineKind, make: Callable[[], Lowered], plans: Mapping[str, Plans], options: Options
) -> _Before:
    """Write a baseline to a temporary file and measure what came out, or say why nothing did."""
    try:
        lowered = make()
    except LoweringError as error:
        return _Before(baseline=Baseline(kind=kind, bytes=None, loadable=False, note=error.message))
    with scratch() as stream:
        lowered.write(stream)
        stream.flush()
        stream.seek(0)
        pte = parse_pte(map_open(stream, kind))
    measured = measure(pte, options.runtime, reasons=lowered.reasons)
    return _Before(baseline=baseline_of(kind, measured), measured=measured, plans=plans)
