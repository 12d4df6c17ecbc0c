"""The report of a file, as far as its bytes tell, against another."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from vkfuse.measure.weights import weights
from vkfuse.pages import digest
from vkfuse.pte.model import PteFile
from vkfuse.quantities import bits_per_weight
from vkfuse.report.build import Measured
from vkfuse.report.diff import diff_of
from vkfuse.report.model import Baseline, BaselineKind, InputFile, MethodRow, OutputFile, Report, WhatIfRow
from vkfuse.runtime.versions import find_runtime
from vkfuse.tables.proven import WhatIf

_NO_OTHER: Final = (
    "what if: no table of floats that could be quantized, and no scales of lookups that could be halves"
)


def report_of(
    after: Measured, before: Measured | None, runtime: str, *, path: str = "", hashed: bool = True
) -> Report:
    """Return what the bytes of a file tell, to be found at `path`, against those of another."""
    target = find_runtime(runtime)
    return Report(
        runtime=target.version,
        output=_output_file(after.pte, path, hashed=hashed),
        baseline=None if before is None else baseline_of("file", before),
        methods=after.methods,
        delegation=after.delegation,
        loadable=after.loadable,
        tables=after.tables,
        lookups=after.lookups,
        shaders=after.shaders,
        ledger=after.ledger,
        memory=after.memory,
        not_finite=after.not_finite,
        diff=None if before is None else diff_of(after, before),
        notes=(target.note,) if target.note else (),
    )


def with_settings(report: Report, found: Iterable[WhatIf]) -> Report:
    """Return the report with what tables would take and lose at other settings, of those of several methods once."""
    rows = {
        (of.name, of.setting): WhatIfRow(
            table=of.name,
            setting=of.setting,
            bytes_before=of.before,
            bytes_after=of.after,
            relative_rms=of.loss.relative_rms,
            option=of.option,
        )
        for of in found
    }
    notes = report.notes if rows else (*report.notes, _NO_OTHER)
    return replace(report, what_if=tuple(rows.values()), notes=notes)


def baseline_of(kind: BaselineKind, before: Measured) -> Baseline:
    """Return what the report says of the file before."""
    return Baseline(
        kind=kind,
        path=before.pte.path,
        bytes=before.pte.size,
        loadable=before.loadable.ok,
        missing=before.loadable.missing,
        delegation=before.delegation,
    )


def inputs_of(methods: Iterable[MethodRow]) -> InputFile | None:
    """Return the files that programs were read from as one: paths, hashes, the sum of bytes; None where there are none."""
    files = [row.input for row in methods if row.input is not None]
    if not files:
        return None
    return InputFile(
        path=", ".join(f.path for f in files),
        bytes=sum(f.bytes for f in files),
        sha256=", ".join(f.sha256 for f in files),
    )


def _output_file(pte: PteFile, path: str, *, hashed: bool) -> OutputFile:
    """Return the size and hash of a file that was read, named as `path` where that is another."""
    stored = pte.size + sum(map(len, pte.external.values()))
    return OutputFile(
        path=path or pte.path,
        bytes=pte.size,
        sha256=digest(pte.data).hex() if hashed else "",
        weights=weights(pte),
        bits_per_weight=bits_per_weight(stored, weights(pte)),
    )
