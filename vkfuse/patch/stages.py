"""The order of the stages for a file: read, mend, plan, edit, write, read back, judge, prove, report. Prints nothing.

Imports neither torch nor ExecuTorch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from vkfuse.errors import LoweringError, VkfuseError
from vkfuse.lint import faults
from vkfuse.measure.names import DIGITS, KEY, names_datum, table_names
from vkfuse.options import BaselineChoice, Options, Progress, Scales, VulkanOptions
from vkfuse.output import Into, published, write
from vkfuse.pages import digest, forget
from vkfuse.patch.edit import edited
from vkfuse.patch.mends import mended
from vkfuse.patch.plan import PatchPlan, packs_of, plan
from vkfuse.patch.rows import kept_proofs, loss_rows, repair_rows, table_rows, written_proofs
from vkfuse.patch.sites import file_tables, settings_of
from vkfuse.provenance import provenance
from vkfuse.pte import read_pte
from vkfuse.pte.model import NamedData, PteFile
from vkfuse.pte.values import Extent
from vkfuse.pte.writer import write_pte
from vkfuse.report.build import Measured, measure
from vkfuse.report.checks import checked, require_passed
from vkfuse.report.cost import Meter
from vkfuse.report.model import Baseline, InputFile, Report, Result, Verify
from vkfuse.report.whole import report_of, with_settings
from vkfuse.runtime.versions import find_runtime

_NOT_RUN: Final = "vkfuse verify runs a written file beside its input"


def optimize_file(
    file: PteFile,
    output: Path,
    options: Options,
    *,
    progress: Progress = lambda _stage: None,
    into: Into | None = None,
    command: Sequence[str] = (),
) -> Result:
    """Write `file` to `output` with each table at its best rung, proved from the written bytes.

    Raises FormatError, OutputError, VkfuseError for options that a file cannot take, LoweringError where the runtime would
    not load the result, and GatesFailedError; then `output` is what it was before.
    """
    meter, runtime = Meter(), find_runtime(options.runtime)
    progress = meter.watching(progress)
    _check(options)
    read = (None if file.path in {"", "stdin"} else file.path, options.given_baseline)
    with published(output, read, into=into) as places:
        progress("planning")
        sound = mended(file, runtime)
        plans = plan(sound.file, runtime, options.vulkan, progress, options.lossy)
        progress("writing")
        changed = renamed(edited(sound.file, packs_of(plans)), sound.file, plans)
        write(places.model, partial(write_pte, changed), output)
        after = measure(read_pte(places.model), options.runtime)
        if not options.partial:
            _require_loadable(after)
        progress("proving")
        shown = {**kept_proofs(sound.file, after.pte), **written_proofs(plans, after.pte)}
        rows = table_rows(sound.file, plans, shown)
        forget(after.pte.data)
        before = _before(file, options)
        report = replace(
            report_of(after, before, options.runtime, path=str(output)),
            input=InputFile(path=file.path, bytes=file.size, sha256=digest(file.data).hex()),
            tables=rows,
            provenance=provenance(options, command),
            repairs=repair_rows(sound.mends),
            losses=tuple(loss_rows(plans)),
            verify=Verify(ran=False, ok=None, max_abs_error=None, max_rel_error=None, skipped=(_NOT_RUN,)),
        )
        report = checked(report, options.gates, after, before)
        report = replace(report, cost=meter.cost(), baseline=report.baseline or _NONE)
        require_passed(report)
    return Result(report=report, output=output)


def inspect_file(
    file: PteFile, options: Options, *, progress: Progress = lambda _stage: None, what_if: bool = False
) -> Result:
    """The plan for a file: each table, its verdict and what it would take, `what_if` its floats at other settings too."""
    _check_scales(options)
    meter, runtime = Meter(), find_runtime(options.runtime)
    progress = meter.watching(progress)
    progress("planning")
    sound = mended(file, runtime)
    plans = plan(sound.file, runtime, options.vulkan, progress, options.lossy)
    report = Report(
        runtime=runtime.version,
        input=InputFile(path=file.path, bytes=file.size),
        tables=table_rows(sound.file, plans),
        repairs=repair_rows(sound.mends),
        losses=tuple(loss_rows(plans)),
    )
    if what_if:
        report = with_settings(report, settings_of(file_tables(sound.file)))
    return Result(report=replace(report, cost=meter.cost()), output=None)


_NONE: Final = Baseline(kind="none", bytes=None, loadable=None)


def _check(options: Options) -> None:
    """Refuse what only the lowering of a program can do. VkfuseError."""
    _check_scales(options)
    options.check_gates()
    if options.keep_baseline is not None:
        raise VkfuseError("there is no baseline to keep", hint="the baseline of a .pte is the input itself")
    if options.baseline is BaselineChoice.STOCK:
        raise VkfuseError(
            "a .pte has no stock baseline: there is no program to lower",
            hint="its baseline is the input itself",
        )
    if options.cache is not None:
        raise VkfuseError(
            "--cache keeps what programs are lowered to, and a .pte is not lowered", hint="leave it out"
        )
    if options.check_indices:
        raise VkfuseError(
            "--check-indices changes a program, which a .pte has not", hint="give it with the .pt2"
        )
    given = options.vulkan
    if given != VulkanOptions(lookup_layout=given.lookup_layout, scales=given.scales):
        raise VkfuseError(
            "--fp16, --storage, --small-textures and --embed-shader are choices of lowering, which a .pte is behind",
            hint="leave them out, or optimize the .pt2",
        )


def _check_scales(options: Options) -> None:
    if options.vulkan.scales is Scales.HALF:
        raise VkfuseError(
            "--scales half changes a program, which a .pte has not", hint="give it with the .pt2"
        )


def _before(file: PteFile, options: Options) -> Measured | None:
    """What the output is compared with: the input, or the file that was named."""
    if options.baseline is BaselineChoice.NONE:
        return None
    given = options.given_baseline
    return measure(file if given is None else read_pte(given), options.runtime)


def _require_loadable(after: Measured) -> None:
    """Raise LoweringError where the runtime fails on the written file, or gets it wrong."""
    failing = faults(after.loadable.findings)
    if failing:
        first, more = failing[0], len(failing) - 1
        others = f", and {more} more" if more else ""
        raise LoweringError(
            f"{first.where}: {first.name}: {first.code}{others}",
            hint=f"{first.hint}; --partial writes it all the same",
        )


def renamed(file: PteFile, before: PteFile, plans: Iterable[PatchPlan]) -> PteFile:
    """Return an edited file with the names that `before` records, of the new packs too; without any where it has none."""
    known = table_names(before)
    named = {name: plan for plan in plans if (name := plan.table.name) in known.values()}
    packs = {
        digest(offer.stored[0].data.cast("B")).hex()[:DIGITS]: name
        for name, plan in named.items()
        for offer in plan.offers
    }
    if not packs:
        return file
    data = memoryview(names_datum({**known, **packs}))
    kept = (entry for entry in file.named if entry.key != KEY)
    entry = NamedData(key=KEY, segment_index=0, data=data, data_at=Extent(file.size, len(data)))
    return replace(file, named=(*kept, entry))
