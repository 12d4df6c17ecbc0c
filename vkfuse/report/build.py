"""Parts of a report, measured in files."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

from vkfuse.lint import faults, lint
from vkfuse.lint.findings import Finding
from vkfuse.measure.ledger import LedgerEntry, ledger
from vkfuse.measure.memory import MethodMemory, memory
from vkfuse.measure.names import table_names
from vkfuse.measure.not_finite import not_carried
from vkfuse.pte.delegates import placement
from vkfuse.pte.model import PteFile
from vkfuse.report.file_tables import embedded_shaders, lookups_of, tables_of
from vkfuse.report.model import (
    CpuOperator,
    Delegation,
    EmbeddedShader,
    Loadable,
    LookupRow,
    MethodRow,
    RuntimeRow,
    TableRow,
)
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.versions import DEFAULT, find_runtime, known_versions

Reasons = Mapping[str, Objection]
_NO_REASONS: Final[Reasons] = MappingProxyType({})
_NO_NAMES: Final[Mapping[str, str]] = MappingProxyType({})
_NO_METHODS: Final[Mapping[str, Reasons]] = MappingProxyType({})


def delegation_of(
    pte: PteFile,
    reasons: Reasons = _NO_REASONS,
    *,
    runtime: str = DEFAULT,
    method: str | None = None,
) -> Delegation:
    """Return where operators of all methods, or of one, run; `reasons` by functional name (`aten.add.Scalar`) say why."""
    placed = placement(pte, method=method)
    registered = find_runtime(runtime).operators
    return Delegation(
        subgraphs=placed.subgraphs,
        crossings=placed.crossings,
        vulkan=placed.vulkan,
        cpu={name: _on_cpu(name, count, reasons, registered) for name, count in placed.cpu.items()},
        backends=placed.backends,
    )


def _on_cpu(kernel: str, count: int, reasons: Reasons, registered: Iterable[str]) -> CpuOperator:
    """Return an operator on the CPU with the reason given, or the one that the runtime's list gives."""
    reason = _matching(kernel, reasons)
    if reason is not None:
        return CpuOperator(count=count, reason=reason.code, detail=reason.detail)
    packet = packet_of(kernel)
    known = any(name.startswith(packet) for name in registered)
    if not packet:
        return CpuOperator(count=count, reason=Code.RUNTIME_PRIMITIVE)
    unknown = Code.NOT_PARTITIONED if reasons else ""  # inside a branch, or added after partitioning
    return CpuOperator(count=count, reason=unknown if known else Code.NOT_REGISTERED)


def _matching(kernel: str, reasons: Reasons) -> Objection | None:
    """Return the reason of the operator whose out variant `kernel` is: of its overload, else of its name."""
    packet, _, overload = kernel.partition(".")
    functional = f"{packet.replace('::', '.')}.{overload.removesuffix('_out')}"
    prefix = packet_of(kernel)
    named = [reason for name, reason in reasons.items() if prefix and name.startswith(prefix)]
    return reasons.get(functional) or (named[0] if named else None)


def packet_of(kernel: str) -> str:
    """`aten::add.Scalar_out`, `aten.add.Tensor` -> `aten.add.`; empty for the runtime's own primitives."""
    packet = ".".join(kernel.replace("::", ".").split(".")[:2]) + "."
    return "" if packet.startswith("executorch_prim.") else packet


def judged(findings: tuple[Finding, ...]) -> Loadable:
    """Return whether a runtime loads a file of these findings, and computes what it says."""
    failing = faults(findings)
    absent = (finding.name for finding in failing if finding.code in _ABSENT)
    return Loadable(ok=not failing, missing=tuple(dict.fromkeys(absent)), findings=findings)


def runtimes_of(pte: PteFile) -> tuple[RuntimeRow, ...]:
    """Return which of the known runtimes load a file, and what each misses."""
    return tuple(_on(version, lint(pte, version)) for version in known_versions())


def _on(version: str, findings: tuple[Finding, ...]) -> RuntimeRow:
    verdict = judged(findings)
    codes = dict.fromkeys(str(finding.code) for finding in faults(findings))
    return RuntimeRow(version=version, ok=verdict.ok, missing=verdict.missing, codes=tuple(codes))


_ABSENT: Final = (Code.NOT_REGISTERED, Code.NO_SHADER, Code.NO_KERNEL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Everything that a report says of one file, as far as its bytes tell; `reasons` for the CPU by method, as given."""

    pte: PteFile
    reasons: Mapping[str, Reasons]
    delegation: Delegation
    methods: tuple[MethodRow, ...]
    loadable: Loadable
    tables: tuple[TableRow, ...]
    lookups: tuple[LookupRow, ...]
    shaders: tuple[EmbeddedShader, ...]
    ledger: tuple[LedgerEntry, ...]
    memory: tuple[MethodMemory, ...]
    not_finite: Mapping[str, int]


def measure(
    pte: PteFile,
    runtime: str = DEFAULT,
    *,
    reasons: Mapping[str, Reasons] = _NO_METHODS,
    names: Mapping[str, str] = _NO_NAMES,
) -> Measured:
    """Measure a file for a runtime. InputError, FormatError.

    `reasons` for operators on the CPU by method; `names` of tables by the first digits of the SHA-256 of their bytes, where
    the file need not record them.
    """
    delegation = partial(delegation_of, pte, runtime=runtime)
    every = {name: reason for of in reversed([*reasons.values()]) for name, reason in of.items()}
    return Measured(
        pte=pte,
        reasons=reasons,
        delegation=delegation(every),
        methods=tuple(
            MethodRow(name=m.name, delegation=delegation(reasons.get(m.name, _NO_REASONS), method=m.name))
            for m in pte.methods
        ),
        loadable=judged(lint(pte, runtime)),
        tables=tables_of(pte),
        lookups=lookups_of(pte, names or table_names(pte)),
        shaders=embedded_shaders(pte),
        ledger=ledger(pte),
        memory=memory(pte, runtime),
        not_finite=not_carried(pte, find_runtime(runtime)),
    )
