"""The order of the stages: load, plan, rewrite, lower, read back, compare, report. Prints nothing."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from vkfuse.cost import Meter
from vkfuse.errors import CheckFailedError, LoweringError
from vkfuse.lower.keep_off import Limits
from vkfuse.lower.lowering import Lowered, lower, lower_stock
from vkfuse.lower.quiet import quiet
from vkfuse.lower.reason import Reason
from vkfuse.options import BaselineChoice, Options, Progress
from vkfuse.output import atomic_file, write
from vkfuse.program import Program, from_exported, load
from vkfuse.pte import read_pte
from vkfuse.pte.lint import faults
from vkfuse.pte.runtimes import Runtime, find_runtime
from vkfuse.report.build import Measured, baseline_of, describe_output, measure
from vkfuse.report.diff import diff_of
from vkfuse.report.model import Baseline, BaselineKind, Diff, InputFile, RepairRow, Report, Verify
from vkfuse.rewrite.apply import apply
from vkfuse.rewrite.decisions import TablePlan
from vkfuse.rewrite.plan import before_fused_lookups, plan
from vkfuse.rewrite.repairs import AFTER_TABLES, BEFORE_SURVEY, Repaired, repair
from vkfuse.tables import table_rows
from vkfuse.verify.compare import Tolerance
from vkfuse.verify.verdict import Verification
from vkfuse.verify.verify import VerifyOptions, verify_file

MAX_ROUNDS = 6  # each round keeps at least one more operator off the delegate

METHOD = "forward"
_ON_CPU = {
    "aten.embedding.default": Reason(code="baseline", detail="before the fused lookup it ran on the CPU")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run made: the report and, of `optimize`, the path that was written."""

    report: Report
    output: Path | None


def optimize(
    source: Path | str | ExportedProgram,
    output: Path | str,
    options: Options | None = None,
    *,
    progress: Progress = lambda _stage: None,
    **changes: Any,
) -> Result:
    """Turn a .pt2, or an exported program in memory, into a loadable Vulkan .pte at `output`.

    `changes` are fields of Options by name, as in ``optimize(program, "model.pte", runtime="1.4")``.

    Raises InputError, UnsafePickleError, OutputError, LoweringError, and CheckFailedError where the file's own bytes
    compute something else than the program; then `output` is what it was before.
    """
    chosen, meter, target = dataclasses.replace(options or Options(), **changes), Meter(), Path(output)
    runtime = find_runtime(chosen.runtime)
    given = (
        None
        if isinstance(chosen.baseline, BaselineChoice)
        else measure(read_pte(chosen.baseline), chosen.runtime)
    )
    with atomic_file(target) as temporary:
        program = _program(source, chosen, progress)
        with quiet(verbose=chosen.verbose):
            surveyed, plans = _plan(program, runtime, progress)
            prepared = _prepare(surveyed, plans)
            after = _write_loadable(prepared.exported, temporary, target, chosen, progress)
            verification = _verify(program, temporary, chosen, progress)
            before = _before(program, surveyed, plans, chosen, progress) if given is None else _of_file(given)
        report = Report(
            runtime=runtime.version,
            input=_input(program),
            output=describe_output(temporary, target),
            baseline=before.baseline,
            delegation=after.delegation,
            loadable=after.loadable,
            tables=table_rows(plans, before.plans),
            repairs=_repair_rows(surveyed, prepared),
            verify=_not_verified(program, chosen) if verification is None else verification.summary(),
            cost=meter.cost(),
            ledger=after.ledger,
            diff=None if before.measured is None else _diff(after, before.measured),
            notes=(*((runtime.note,) if runtime.note else ()), *_deviations(verification)),
        )
    return Result(report=report, output=target)


def inspect(
    source: Path | str | ExportedProgram,
    options: Options | None = None,
    *,
    progress: Progress = lambda _stage: None,
) -> Result:
    """The plan for a program without lowering it: each table, its verdict and what it would take."""
    chosen, meter = options or Options(), Meter()
    runtime = find_runtime(chosen.runtime)
    program = _program(source, chosen, progress)
    with quiet(verbose=chosen.verbose):
        surveyed, plans = _plan(program, runtime, progress)
        before = before_fused_lookups(surveyed.exported, plans)
    report = Report(
        runtime=runtime.version,
        input=_input(program),
        tables=table_rows(plans, before),
        cost=meter.cost(),
    )
    return Result(report=report, output=None)


def _program(source: Path | str | ExportedProgram, options: Options, progress: Progress) -> Program:
    progress("loading")
    with quiet(verbose=options.verbose):
        if isinstance(source, ExportedProgram):
            return from_exported(source)
        return load(Path(source), allow_pickle=options.allow_pickle)


def _input(program: Program) -> InputFile | None:
    return None if program.bytes is None else InputFile(path=program.name, bytes=program.bytes)


def _plan(program: Program, runtime: Runtime, progress: Progress) -> tuple[Repaired, tuple[TablePlan, ...]]:
    """The program as the survey sees it, and the plan for its tables."""
    progress("planning")
    surveyed = repair(program.exported, BEFORE_SURVEY)
    return surveyed, plan(surveyed.exported, runtime.operators)


def _prepare(surveyed: Repaired, plans: tuple[TablePlan, ...]) -> Repaired:
    return repair(apply(surveyed.exported, plans), AFTER_TABLES)


def _write_loadable(
    exported: ExportedProgram, temporary: Path, target: Path, options: Options, progress: Progress
) -> Measured:
    """Lower and read back until the runtime can load the file, each time with fewer operators on the delegate.

    Raises LoweringError that names what is left.
    """
    operators = find_runtime(options.runtime).operators
    kept_off: dict[str, Reason] = {}
    for _ in range(MAX_ROUNDS):
        progress(
            "lowering" if not kept_off else f"lowering again with {', '.join(sorted(kept_off))} on the CPU"
        )
        lowered = lower({METHOD: exported}, Limits(operators=operators, kept_off=kept_off), options.vulkan)
        write(temporary, lowered.write, target)
        progress("reading back")
        measured = measure(read_pte(temporary), options.runtime, reasons=lowered.reasons)
        findings = faults(measured.loadable.findings)
        if not findings:
            return measured
        more = {
            f.operator: Reason(code=f.code, detail=f.hint)
            for f in findings
            if f.operator not in {"", *kept_off}
        }
        if not more:
            break
        kept_off |= more
    left = "; ".join(f"{f.name} ({f.code}, in {f.where})" for f in findings[:5])
    raise LoweringError(
        f"ExecuTorch {options.runtime} cannot load what the program lowers to: {left}", hint=findings[0].hint
    )


def _diff(after: Measured, before: Measured) -> Diff:
    """What changed in the files; tables have rows of their own, by name."""
    return dataclasses.replace(diff_of(after, before), tables=())


def _repair_rows(*stages: Repaired) -> tuple[RepairRow, ...]:
    """A row for each node that a repair changed."""
    repairs = [repair for stage in stages for repair in stage.repairs]
    return tuple(RepairRow(code=r.code, node=node, detail=r.detail) for r in repairs for node in r.nodes)


def _verify(program: Program, written: Path, options: Options, progress: Progress) -> Verification | None:
    """Run the written bytes against the program, None where not wanted or not possible.

    Raises CheckFailedError where they differ.
    """
    if not options.verify or program.example_inputs is None:
        return None
    progress("verifying")
    tolerance = Tolerance(arithmetic=torch.float16 if options.vulkan.fp16 else None)
    chosen = VerifyOptions(runtime=options.runtime, seeds=1, tolerance=tolerance)
    verification = verify_file(written, program.exported, chosen)
    if verification.ok or verification.status == "cannot-verify":
        return verification
    raise CheckFailedError(
        f"the lowered file does not compute what the program does: {verification.message}",
        hint=verification.hint or "--no-verify writes it all the same",
    )


def _not_verified(program: Program, options: Options) -> Verify:
    why = (
        "the program stores no example inputs"
        if options.verify and program.example_inputs is None
        else "not asked for"
    )
    return Verify(ran=False, ok=None, max_abs_error=None, max_rel_error=None, skipped=(why,))


def _deviations(verification: Verification | None) -> Iterator[str]:
    """What the runtime computes differently from torch by its own design, with the largest measured deviation."""
    runs = verification.runs if verification is not None else ()
    reasons = dict.fromkeys(run.reason for run in runs if run.reason)
    for reason in reasons:
        worst = max(run.eager_rel or 0.0 for run in runs if run.reason == reason)
        yield f"up to {worst:.2g} of the largest value off torch by the runtime's design: {reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Before:
    """The file before: what the report says of it, its measures, and the plan that it follows where there is one."""

    baseline: Baseline
    measured: Measured | None = None
    plans: tuple[TablePlan, ...] = ()


def _of_file(given: Measured) -> _Before:
    return _Before(baseline=baseline_of("file", given), measured=given)


def _before(
    program: Program, surveyed: Repaired, plans: tuple[TablePlan, ...], options: Options, progress: Progress
) -> _Before:
    """The file that the choice of a baseline names, made and measured."""
    if options.baseline is BaselineChoice.NONE:
        return _Before(baseline=Baseline(kind="none", bytes=None, loadable=None))
    progress(f"lowering the {options.baseline} baseline")
    if options.baseline is BaselineChoice.STOCK:
        return _written("stock", lambda: lower_stock({METHOD: program.exported}, options.vulkan), (), options)
    folded = before_fused_lookups(surveyed.exported, plans)
    limits = Limits(operators=find_runtime(options.runtime).operators, kept_off=_ON_CPU)
    exported = _prepare(surveyed, folded).exported
    return _written("folded", lambda: lower({METHOD: exported}, limits, options.vulkan), folded, options)


def _written(
    kind: BaselineKind, make: Callable[[], Lowered], plans: tuple[TablePlan, ...], options: Options
) -> _Before:
    """Write a baseline to a temporary file and measure what came out, or say why nothing did."""
    with tempfile.TemporaryDirectory(prefix="vkfuse-") as folder:
        path = Path(folder) / f"{kind}.pte"
        try:
            lowered = make()
        except LoweringError as error:
            return _Before(baseline=Baseline(kind=kind, bytes=None, loadable=False, note=error.message))
        write(path, lowered.write, path)
        measured = measure(read_pte(path), options.runtime, reasons=lowered.reasons)
    baseline = dataclasses.replace(baseline_of(kind, measured), path="")
    return _Before(baseline=baseline, measured=measured, plans=plans)
