"""The report: what is in a file, what was done, what was refused and why. Plain data, without torch.

`vkfuse.report.serial.to_json` turns it into the JSON that scripts read (`vkfuse.report/2`); field names are
the keys. Keys may be added within a schema version, none renamed. None means: not measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Final, Literal, Self, get_args

from vkfuse.lint.findings import Finding, FindingEffect
from vkfuse.measure.ledger import LedgerEntry
from vkfuse.measure.memory import MethodMemory
from vkfuse.pte.place import Place
from vkfuse.runtime.operators.lookup import Dispatch
from vkfuse.tables.proven import Loss, Proof

SCHEMA: Final = "vkfuse.report/2"
SEVERAL: Final = "vkfuse.reports/1"  # `reports` is a list of those

BaselineKind = Literal["folded", "stock", "file", "none"]
Rung = Literal["q4", "q8", "gathered", "folded", "untouched"]
RUNGS: Final[tuple[Rung, ...]] = get_args(Rung)  # best first, as vkfuse.tables.decisions.Rung counts them


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """The program that was read; of several their paths and hashes, and the sum of their bytes."""

    path: str
    bytes: int
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFile:
    """The .pte that the report is about: `sha256` is empty where it was not asked for.

    `weights` is how many it holds, None where that is not known.
    """

    path: str
    bytes: int
    sha256: str
    weights: int | None = None
    bits_per_weight: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuOperator:
    """An operator that stays on the CPU: how often, and why (`reason` is a code)."""

    count: int
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """Where operators run; `crossings`: tensors handed to and from delegates, `backends`: delegates by id."""

    subgraphs: int
    crossings: int
    vulkan: Mapping[str, int]
    cpu: Mapping[str, CpuOperator]
    backends: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loadable:
    """Whether the runtime loads the file and computes what it says; `missing` operators, kernels, shaders."""

    ok: bool
    missing: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The file before: `note` says how it was made, or why it could not be, then `bytes` is None."""

    kind: BaselineKind
    bytes: int | None
    loadable: bool | None
    path: str = ""
    note: str = ""
    missing: tuple[str, ...] = ()
    delegation: Delegation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One quantized weight: `how` are the codes of what was done to it, `reason` why no better rung.

    `methods` are those that read it; its bytes count once, scales and all, also in `bits_per_weight`.
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    group_size: int | None
    consumers: tuple[str, ...]
    rung: Rung
    how: tuple[str, ...]
    reason: str
    bytes_before: int | None
    bytes_after: int
    proof: Proof | None
    methods: tuple[str, ...] = ()
    bits_per_weight: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupRow:
    """A fused lookup: the table that it reads, its delegate, and the shaders that it may dispatch there.

    `table` is a name in `tables`; `shaders` are two where the device's limits decide, as their `when` says.
    """

    table: str
    method: str
    where: Place
    shaders: tuple[Dispatch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedShader:
    """SPIR-V that delegates carry: vkfuse's own by `name`, empty where it is another; `where` are the delegates."""

    name: str
    sha256: str
    bytes: int
    where: tuple[Place, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairRow:
    """An exact rewrite around something that the runtime lacks."""

    code: str
    node: str
    detail: str
    method: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    """Outputs of the file's own bytes against the program; `skipped`: what was not compared, and why."""

    ran: bool
    ok: bool | None
    max_abs_error: float | None
    max_rel_error: float | None
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodRow:
    """One method of the file: the program that it came from, where its operators run, whether it is right."""

    name: str
    input: InputFile | None = None
    delegation: Delegation | None = None
    verify: Verify | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What made the file: versions of packages, SHA-256 of what is known of the runtime, options by name, the command.

    With the hashes of `input` and `output`: the same of all of these, but for the command, gives the same output.
    """

    versions: Mapping[str, str]
    runtime_data: str
    options: Mapping[str, str | int | float | bool | None]
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """Wall and CPU time of a stage, and the process' peak resident memory up to its end."""

    name: str
    seconds: float
    cpu_seconds: float
    peak_rss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Wall time and peak resident memory of the run, and of its stages in the order in which they began."""

    seconds: float
    peak_rss_bytes: int
    stages: tuple[StageCost, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A check that the user asked for: `value` and `limit` in `unit` (bytes, %), `detail` names what they are about."""

    name: str
    passed: bool
    value: float | str | None
    limit: float | str | None
    unit: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeChange:
    """Bytes before and after; None where there was, or is, nothing."""

    label: str
    kind: str
    before: int | None
    after: int | None
    delta: int
    percent: float | None  # of before; None where before is nothing

    @classmethod
    def of(cls, label: str, kind: str, before: int | None, after: int | None) -> Self:
        """Return what changed from one size to another."""
        delta = (after or 0) - (before or 0)
        percent = 100 * delta / before if before else None
        return cls(label=label, kind=kind, before=before, after=after, delta=delta, percent=percent)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountChange:
    """Calls of an operator before and after, on the CPU or on Vulkan.

    It `moved` where the other place has as many fewer or more calls of the same name, whatever the overload.
    """

    operator: str
    place: Literal["vulkan", "cpu"]
    before: int
    after: int
    what: Literal["appeared", "vanished", "moved", "more", "fewer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutChange:
    """Calls of an operator whose element types, storage or packing differ: `calls` of them, described before and after."""

    operator: str
    place: Literal["vulkan", "cpu"]
    before: str
    after: str
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingChange:
    """A reason why a runtime fails, is wrong or needs something, at so many places before and after."""

    effect: FindingEffect
    name: str
    code: str
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TableChange:
    """A table that only one file has (`before` or `after` is empty), or whose rung, size or content differs."""

    name: str
    before: str
    after: str
    delta: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentChange:
    """A label of as many bytes as before and other content: how many of its `parts` are `changed`, and of its bytes.

    Parts of a label are compared in the order in which the file uses them.
    """

    label: str
    kind: str
    bytes: int
    parts: int
    changed: int
    differing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """The output against the baseline file: only what changed, the largest change first; `memory` is all of it.

    Every byte that differs stands under a label in `ledger`, by its size, or in `contents`.
    """

    total: SizeChange
    ledger: tuple[SizeChange, ...]
    operators: tuple[CountChange, ...]
    tables: tuple[TableChange, ...]
    identical: bool
    contents: tuple[ContentChange, ...] = ()
    memory: tuple[SizeChange, ...] = ()
    layouts: tuple[LayoutChange, ...] = ()
    findings: tuple[FindingChange, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeRow:
    """A runtime by its version: whether it loads the file and is right, what it misses, and why not by code."""

    version: str
    ok: bool
    missing: tuple[str, ...]
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalFile:
    """External data that was given with a file: how many blobs it holds."""

    path: str
    bytes: int
    blobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LossRow:
    """What a table, or an output on the example inputs, lost of the program as it was given, since that was asked for.

    `sqnr_db` is signal to noise, None where nothing was lost; `how` is the setting of a table, empty for an output.
    """

    method: str
    what: Literal["table", "output"]
    name: str
    how: str
    sqnr_db: float | None
    relative_rms: float
    cosine: float
    max_abs_error: float

    @classmethod
    def of(cls, method: str, what: Literal["table", "output"], name: str, how: str, lost: Loss) -> Self:
        """Return the row of what numbers lost."""
        return cls(
            method=method,
            what=what,
            name=name,
            how=how,
            sqnr_db=lost.sqnr_db if isfinite(lost.sqnr_db) else None,
            relative_rms=lost.relative_rms,
            cosine=lost.cosine,
            max_abs_error=lost.max_abs_error,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIfRow:
    """What a table would take and lose at a setting; `option` would do it."""

    table: str
    setting: str
    bytes_before: int
    bytes_after: int
    relative_rms: float
    option: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that a run has to say; the renderers read nothing else.

    `not_finite` counts the calls, by operator, that do not carry NaN and infinity as torch does.
    """

    runtime: str
    input: InputFile | None = None
    output: OutputFile | None = None
    baseline: Baseline | None = None
    methods: tuple[MethodRow, ...] = ()
    delegation: Delegation | None = None
    loadable: Loadable | None = None
    tables: tuple[TableRow, ...] = ()
    losses: tuple[LossRow, ...] = ()
    what_if: tuple[WhatIfRow, ...] = ()
    lookups: tuple[LookupRow, ...] = ()
    shaders: tuple[EmbeddedShader, ...] = ()
    repairs: tuple[RepairRow, ...] = ()
    verify: Verify | None = None
    cost: Cost | None = None
    provenance: Provenance | None = None
    checks: tuple[Check, ...] = ()
    ledger: tuple[LedgerEntry, ...] = ()
    memory: tuple[MethodMemory, ...] = ()
    not_finite: Mapping[str, int] = field(default_factory=dict)
    external: tuple[ExternalFile, ...] = ()
    runtimes: tuple[RuntimeRow, ...] = ()
    diff: Diff | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """A file of several that could not be read, and why."""

    path: str
    error: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """Several files, each by itself; `unread` are those that say nothing."""

    reports: tuple[Report, ...]
    unread: tuple[Unread, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The report and, of `optimize`, the path that was written."""

    report: Report
    output: Path | None
