"""The order of the stages: load, plan, rewrite, lower, read back, prove, verify, compare, report. Prints nothing."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from vkfuse.entries import MissedError, damaged
from vkfuse.errors import OutputError
from vkfuse.lower.loadable import lower_loadable
from vkfuse.lower.lowering import Lowered
from vkfuse.lower.owned import StateOutsideError, StatePlace
from vkfuse.measure.names import KEY, names_datum
from vkfuse.options import Compute, Options, Progress
from vkfuse.output import Into, published, write
from vkfuse.pages import thrifty
from vkfuse.pipeline.assembly import report_of_file, report_of_plan
from vkfuse.pipeline.baseline import baseline_file, baseline_made
from vkfuse.pipeline.cache import Cache, note
from vkfuse.pipeline.losses import lossy
from vkfuse.pipeline.method import Methods, folded, made_of, planned, proved, surveyed, to_lower
from vkfuse.pipeline.tables import stored_names
from vkfuse.pipeline.verification import verified
from vkfuse.program.check import Checked
from vkfuse.program.imports import import_modules
from vkfuse.program.lean import lean_graphs, one_thread
from vkfuse.program.load import Program, from_exported, load, widened
from vkfuse.program.methods import METHOD, checked_methods
from vkfuse.provenance import provenance
from vkfuse.pte import read_pte
from vkfuse.pte.model import PteFile
from vkfuse.pte.writer import write_pte
from vkfuse.quiet import quiet
from vkfuse.report.build import Measured, measure
from vkfuse.report.checks import require_passed
from vkfuse.report.cost import Meter
from vkfuse.report.model import Result
from vkfuse.report.whole import with_settings
from vkfuse.rewrite.quantize import settings_of
from vkfuse.runs import kept
from vkfuse.runtime.versions import find_runtime

Source = Path | str | Checked | ExportedProgram


def optimize(
    source: Source | Mapping[str, Source],
    output: Path | str,
    options: Options | None = None,
    *,
    progress: Progress = lambda _stage: None,
    into: Into | None = None,
    command: Sequence[str] = (),
    **changes: Any,
) -> Result:
    """Turn a .pt2, or an exported program in memory, into a loadable Vulkan .pte at `output`.

    A mapping gives several programs by the names of their methods; what they share is stored once. A program by itself
    is the method "forward". `changes` are options by name, as in ``optimize(program, "model.pte", runtime="1.4")``.

    Raises InputError, UnsafePickleError, OutputError, LoweringError, CheckFailedError where the file's own bytes compute
    something else than the program, and GatesFailedError, which has the report, where one of the gates fails; then `output`
    is what it was before. A caller that publishes the files itself names temporaries in `into`; its `command` is reported.
    """
    chosen, meter, target = (options or Options()).changed(changes), Meter(), Path(output)
    chosen.check_gates()
    progress = meter.watching(progress)
    runtime = find_runtime(chosen.runtime)
    given = baseline_file(chosen)
    sources = source.values() if isinstance(source, Mapping) else [source]
    read = (*sources, chosen.given_baseline)
    with published(target, read, into=into, keep=chosen.keep_baseline) as places, thrifty() as told:
        programs = _programs(source, chosen, progress)
        for program in programs.values():
            told(program.mapped)
        with quiet(verbose=chosen.verbose), lean_graphs():
            with one_thread():
                progress("planning")
                methods, losses = lossy(surveyed(programs, chosen), chosen)
                methods = planned(methods, runtime, chosen)
                methods, after, notes = _write_loadable(methods, places.model, target, chosen, progress)
                told(after.pte.data)
                progress("proving")
                methods = proved(methods, after.pte)
            methods = verified(methods, after.pte, chosen, progress)
            before = given or baseline_made(methods, after, chosen, progress, places.baseline)
        progress("reporting")
        report = report_of_file(methods, after, before, target, chosen, meter)
        report = replace(
            report, provenance=provenance(chosen, command), losses=losses, notes=(*report.notes, *notes)
        )
        require_passed(report)
        report = kept(report, places.model, chosen)
    return Result(report=report, output=target)


def inspect(
    source: Source | Mapping[str, Source],
    options: Options | None = None,
    *,
    progress: Progress = lambda _stage: None,
    what_if: bool = False,
    **changes: Any,
) -> Result:
    """The plan for one program or several without lowering: each table, its verdict and what it would take.

    With `what_if` also what tables would take, and lose, at other settings.
    """
    chosen, meter = (options or Options()).changed(changes), Meter()
    runtime, progress = find_runtime(chosen.runtime), meter.watching(progress)
    with thrifty() as told:
        programs = _programs(source, chosen, progress)
        for program in programs.values():
            told(program.mapped)
        with quiet(verbose=chosen.verbose), lean_graphs(), one_thread():
            progress("planning")
            methods = surveyed(programs, chosen)
            settings = [row for m in methods for row in settings_of(m.surveyed.exported)] if what_if else []
            methods, losses = lossy(methods, chosen)
            methods = planned(methods, runtime, chosen)
            before = folded(methods)
    report = replace(report_of_plan(methods, before, runtime, meter), losses=losses)
    return Result(report=with_settings(report, settings) if what_if else report, output=None)


def _programs(
    source: Source | Mapping[str, Source], options: Options, progress: Progress
) -> dict[str, Program]:
    """Each method's program, in the order given."""
    sources = checked_methods(source if isinstance(source, Mapping) else {METHOD: source})
    progress("loading")
    with quiet(verbose=options.verbose), lean_graphs():
        import_modules(options.imports)
        loaded = {name: _program(of, options) for name, of in sources.items()}
        return loaded if options.compute is Compute.GIVEN else {n: widened(p) for n, p in loaded.items()}


def _program(source: Source, options: Options) -> Program:
    if isinstance(source, ExportedProgram):
        return from_exported(source)
    of = source if isinstance(source, Checked) else Path(source)
    return load(of, allow_pickle=options.allow_pickle, max_memory=options.max_memory)


def _write_loadable(
    methods: Methods, temporary: Path, target: Path, options: Options, progress: Progress
) -> tuple[Methods, Measured, tuple[str, ...]]:
    """Prepare, lower, write and read back until the runtime can load the file; the last reading is what all others look at.

    Raises LoweringError that names what is left.
    """
    return made_of(methods, options, lambda ready: _lowered(ready, temporary, target, options, progress))


def _lowered(
    methods: Methods, temporary: Path, target: Path, options: Options, progress: Progress
) -> tuple[Methods, Measured, tuple[str, ...]]:

    def written(lowered: Lowered) -> PteFile:
        write(temporary, lowered.write, target)
        return read_pte(temporary)

    names = stored_names(methods)
    named = {KEY: names_datum(names)} if names and options.names else {}
    cache, missed = None, ""
    if options.cache is not None:
        try:
            progress("looking in the cache")
            cache = Cache(methods, options)
            earlier = cache.earlier(named)
            with damaged():
                write(temporary, partial(write_pte, earlier.file, as_lowered=True), target)
                after = measure(read_pte(temporary), options.runtime, reasons=earlier.reasons, names=names)
            if after.loadable.ok:
                return _placed(methods, earlier.state), after, (note(cache.key, "", verified=options.verify),)
            missed = "the earlier run's file would not load"
        except MissedError as error:
            missed = str(error)
    try:
        lowered, pte = lower_loadable(to_lower(methods), options, written, progress, named=named)
    except StateOutsideError as error:
        if cache is not None:
            with contextlib.suppress(OutputError):  # said where there is a file to keep
                cache.keep_outside(error)
        raise
    if cache is not None:
        try:
            cache.keep(temporary, lowered)
        except OutputError as error:
            missed += f", and not kept: {error.message}"
    notes = (note("", missed, verified=True),) if missed else ()
    after = measure(pte, options.runtime, reasons=lowered.reasons, names=names)
    return _placed(methods, lowered.state), after, notes


def _placed(methods: Methods, state: Mapping[str, tuple[StatePlace, ...]]) -> Methods:
    return tuple(replace(m, state=state.get(m.name, ())) for m in methods)
