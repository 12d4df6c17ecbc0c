"""Run a file and the program that it came from side by side, and judge."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch.export import ExportedProgram

from vkfuse.measure.audit import TableCheck, audit
from vkfuse.measure.stored import stored_tables
from vkfuse.measure.tables import read_as_tables, table_reads
from vkfuse.program.lean import one_thread
from vkfuse.program.operators import register_operators
from vkfuse.pte.delegates import vulkan_delegates
from vkfuse.pte.model import PteFile
from vkfuse.pte.reader import read_pte
from vkfuse.runtime.versions import DEFAULT
from vkfuse.verify.compare import Tolerance, of_file
from vkfuse.verify.comparison import Comparison
from vkfuse.verify.device import LookupCollector, check_on_device
from vkfuse.verify.domain import check_bounds, domain_of, empty_calls
from vkfuse.verify.errors import NoInputsError, RandomProgramError
from vkfuse.verify.inputs import Sample, accepted, samples, synthetic
from vkfuse.verify.reference import Reference, flat_inputs
from vkfuse.verify.session import Session, run_file
from vkfuse.verify.steps import Argument
from vkfuse.verify.verdict import Applied, DeviceCheck, Run, Verification, first_difference, judged
from vkfuse.verify.wanted import wanted_tables
from vkfuse.verify.whole import NO_BACKEND, run_whole

Inputs = tuple[tuple[object, ...], Mapping[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """Choices of a verification. `inputs` are (args, kwargs) in the place of the program's stored example.

    `tables` are checks of the file's tables by one who knows what was written; None: they are paired here.
    """

    method: str = "forward"
    runtime: str = DEFAULT
    seeds: int = 3
    inputs: Inputs | None = None
    tolerance: Tolerance = field(default_factory=Tolerance)
    device: bool = False
    external: Mapping[str, memoryview] = field(default_factory=dict)
    tables: tuple[TableCheck, ...] | None = None


@one_thread()
def verify_file(
    pte: Path | str | PteFile, exported: ExportedProgram, options: VerifyOptions | None = None
) -> Verification:
    """Say whether a .pte computes what `exported` does.

    What is wrong with the file is in the verdict; InputError and FormatError are about what was given.
    """
    chosen = options or VerifyOptions()
    register_operators()
    source = pte if isinstance(pte, PteFile) else read_pte(pte, external=chosen.external)
    return judged(lambda: _judged(source, exported, chosen))


def _judged(source: PteFile, exported: ExportedProgram, options: VerifyOptions) -> Verification:
    session = run_file(source, options.method, runtime=options.runtime)
    reference = Reference(exported)
    if reference.draws:
        raise RandomProgramError(reference.draws)
    specs = session.method.input_values
    domain = domain_of(exported, specs)
    check_bounds(exported, domain, specs)
    delegated = any(place.method == options.method for place in vulkan_delegates(source))
    skipped = [*empty_calls(exported, domain)] if delegated else []
    example = _example(exported, options, skipped) or synthetic(domain, specs)
    collector = LookupCollector()
    comparison = Comparison(session, reference, options.tolerance.of(of_file(source, options.method)))
    stateful = bool(exported.graph_signature.buffers_to_mutate)
    given = [*samples(example, domain, options.seeds, stateful=stateful)]
    comparison.foresee(given)
    taken = [*accepted(given, comparison.run, NoInputsError, skipped)]
    cases, runs = [sample for sample, _ in taken], tuple(run for _, run in taken)
    tables = _audited(source, exported, options.method) if options.tables is None else options.tables
    failed = next((sample for sample, run in taken if not run.passed), None)
    departure = None if failed is None else comparison.blame(failed)
    device, device_runs, failure = tuple[DeviceCheck, ...](), tuple[Run, ...](), ""
    if options.device:
        comparison.watch(cases[0], collector)
        device = tuple(check_on_device(collector.lookups))
        if not device:
            skipped.append("the file has no fused lookup to run on a device")
        device_runs, failure = _on_device(source, cases, comparison, options, skipped)
    difference = first_difference(runs, tables, device, device_runs)
    return Verification(
        status="differs" if difference else "fails" if failure else "same",
        message=difference or failure,
        runs=runs,
        tables=tables,
        device=device,
        device_runs=device_runs,
        applied=tuple(_applied(session)),
        departure=departure,
        skipped=tuple(skipped),
    )


def _on_device(
    source: PteFile,
    cases: list[Sample],
    comparison: Comparison,
    options: VerifyOptions,
    skipped: list[str],
) -> tuple[tuple[Run, ...], str]:
    """Run the whole file in the installed ExecuTorch, where that can: what came back, and why the rest did not."""
    if options.external:
        skipped.append("the whole file was not run on a device: its constants are in other files")
        return (), ""
    ran = run_whole(source, options.method, [comparison.calls(case) for case in cases])
    if not ran.registered:
        skipped.append(NO_BACKEND)
    runs = (comparison.compared(case, got) for case, got in zip(cases, ran.outputs, strict=False))
    if not ran.failure:
        return tuple(runs), ""
    at = cases[len(ran.outputs)].label
    return tuple(runs), f"the device does not run the file: {ran.failure} (on {at})"


def _audited(source: PteFile, exported: ExportedProgram, method: str) -> tuple[TableCheck, ...]:
    """Return a check of each table that a method reads."""
    reads = read_as_tables(read for read in table_reads(source) if read.where.method == method)
    return tuple(audit(stored_tables(reads), wanted_tables(exported)))


def _example(
    exported: ExportedProgram, options: VerifyOptions, skipped: list[str]
) -> tuple[Argument, ...] | None:
    """Return the user's inputs, or the stored example, None where there is none."""
    if options.inputs is not None:
        args, kwargs = options.inputs
        return flat_inputs(exported, tuple(args), dict(kwargs))
    if exported.example_inputs is not None:
        args, kwargs = exported.example_inputs
        return flat_inputs(exported, tuple(args), dict(kwargs))
    skipped.append("the program stores no example inputs; made-up ones were used")
    return None


def _applied(session: Session) -> Iterator[Applied]:
    for behaviour, places in session.noted.items():
        yield Applied(code=behaviour, summary=behaviour.meaning, places=tuple(map(str, places)))
