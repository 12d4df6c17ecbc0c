"""The first section of a report: sizes, verdict, delegation, verification, checks, cost."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from vkfuse.quantities import counted, mebibytes, percent, signed, some
from vkfuse.report.model import Baseline, Check, Delegation, Loadable, Report, Verify
from vkfuse.report.section import Section


def summary(report: Report) -> Section:
    """Show sizes, verdict, delegation, verification, checks and cost."""
    lines = (line for lines in _SUMMARY for line in lines(report))
    return Section(title=_title(report), columns=(), rows=tuple(lines))


def headline(report: Report) -> str:
    """`FAILED: model.pte: 84.0 MiB (+1.2 MiB, +1.4%), loadable on 1.5.1, 2 operators on the CPU; 1 of 3 checks failed`."""
    failed = sum(not check.passed for check in report.checks)
    total = counted(len(report.checks), "check")
    checks = (f"{failed} of {total} failed" if failed else f"{total} passed") if report.checks else ""
    facts = ", ".join(fact(report) for fact in _FACTS if fact(report))
    subject = report.output or report.input
    text = "; ".join(filter(None, (facts, checks)))
    return ": ".join(filter(None, ("FAILED" if failed else "", subject.path if subject else "", text)))


def _weighs(report: Report) -> str:
    return dict(_size(report)).get("Size", "").rpartition(" -> ")[2]


def _loads(report: Report) -> str:
    if report.loadable is None:
        return ""
    return f"{'loadable' if report.loadable.ok else 'NOT loadable'} on {report.runtime}"


def _left_on_cpu(report: Report) -> str:
    calls = sum(op.count for op in report.delegation.cpu.values()) if report.delegation is not None else 0
    return f"{counted(calls, 'operator')} on the CPU" if calls else ""


_FACTS: Final = (_weighs, _loads, _left_on_cpu)


def _title(report: Report) -> str:
    """Say what the report is about."""
    subject = report.output or report.input
    name = f"{subject.path}: " if subject is not None else ""
    return f"{name}Vulkan runtime of ExecuTorch {report.runtime}"


def _size(report: Report) -> Iterator[tuple[str, str]]:
    """Yield before -> after, and what before is."""
    if report.input is not None:
        yield "Input", mebibytes(report.input.bytes)
    if report.output is None:
        return
    after, baseline = report.output.bytes, report.baseline
    if baseline is None or baseline.bytes is None:
        yield "Size", mebibytes(after)
    else:
        delta = after - baseline.bytes
        change = f"{signed(delta)}, {percent(100 * delta / baseline.bytes)}" if baseline.bytes else "new"
        yield "Size", f"{mebibytes(baseline.bytes)} -> {mebibytes(after)} ({change})"
    if baseline is not None and baseline.kind != "none":
        yield "Before", _before(baseline)


_BASELINES: Final = {
    "folded": "lowered without vkfuse, as before the fused lookup: tables folded to float",
    "stock": "lowered by the installed ExecuTorch alone",
    "file": "another file",
}


def _before(baseline: Baseline) -> str:
    """Say what the file before is."""
    text = baseline.path if baseline.kind == "file" and baseline.path else _BASELINES[baseline.kind]
    return f"{text}; {baseline.note}" if baseline.note else text


def _bits(report: Report) -> Iterator[tuple[str, str]]:
    """Yield what the file stores a weight, everything in it counted."""
    if report.output is not None and report.output.bits_per_weight is not None:
        yield "Bits", f"{report.output.bits_per_weight:.2f} a weight, of {report.output.weights:,}"


def _loadable(report: Report) -> Iterator[tuple[str, str]]:
    """Say whether the file loads, and whether the one before did."""
    if report.loadable is None:
        return
    now = _verdict(report.loadable)
    if report.baseline is None or report.baseline.loadable is None:
        yield "Loadable", now
    else:
        was = "yes" if report.baseline.loadable else _not_loadable(report.baseline.missing)
        yield "Loadable", f"{was} -> {now}"


def _verdict(loadable: Loadable) -> str:
    """`yes`, `no: ...`, or that it loads and is wrong."""
    if loadable.ok:
        return "yes"
    if any(finding.effect == "fails" for finding in loadable.findings) or loadable.missing:
        return _not_loadable(loadable.missing)
    return "loads, but computes something else (see below)"


def _not_loadable(missing: tuple[str, ...]) -> str:
    """`no: missing a, b and 3 more`."""
    return f"no: missing {some(missing)}" if missing else "no"


def _delegation(report: Report) -> Iterator[tuple[str, str]]:
    """Yield where operators run, now and before."""
    now = report.delegation
    if now is None:
        return
    was = report.baseline.delegation if report.baseline is not None else None
    for key, count in COUNTS:
        text = f"{count(now):,}" if was is None else f"{count(was):,} -> {count(now):,}"
        yield key, text


def _not_finite(report: Report) -> Iterator[tuple[str, str]]:
    """Yield which operators lose NaN or infinity: `not carried by relu (3), softmax (1)`."""
    calls: Counter[str] = Counter()
    for name, count in report.not_finite.items():
        calls[name.split(".")[name.count(".") > 1].lstrip("_")] += count
    if calls:
        yield (
            "Not finite",
            f"not carried by {some([f'{name} ({count})' for name, count in calls.most_common()])}",
        )


COUNTS: Final[tuple[tuple[str, Callable[[Delegation], int]], ...]] = (
    ("Delegates", lambda delegation: delegation.subgraphs),
    ("On Vulkan", lambda delegation: sum(delegation.vulkan.values())),
    ("On the CPU", lambda delegation: sum(operator.count for operator in delegation.cpu.values())),
    ("Crossings", lambda delegation: delegation.crossings),
)


def _unchecked(report: Report) -> Iterator[tuple[str, str]]:
    """Yield, before all else, that nobody ran the file's bytes, or not of all methods, and why."""
    if report.verify is not None and not report.verify.ran:
        yield "Verified", ": ".join((verification(report.verify), *report.verify.skipped[:1]))
        yield from (("", skipped) for skipped in report.verify.skipped[1:])


def _verified(report: Report) -> Iterator[tuple[str, str]]:
    """Yield what running the file's bytes gave."""
    if report.verify is None or not report.verify.ran:
        return
    yield "Verified", verification(report.verify)
    yield from (("", f"not compared: {skipped}") for skipped in report.verify.skipped)


def verification(verify: Verify) -> str:
    """`yes, largest error 0`."""
    if not verify.ran:
        return "NOT CHECKED"
    errors = [
        f"{name} {value:.3g}"
        for name, value in (("absolute", verify.max_abs_error), ("relative", verify.max_rel_error))
        if value is not None
    ]
    largest = f", largest error {', '.join(errors)}" if errors else ""
    return f"{'yes' if verify.ok else 'FAILED'}{largest}"


def _checks(report: Report) -> Iterator[tuple[str, str]]:
    """Yield what the user asked for."""
    for check in report.checks:
        yield "Check", f"{'passed' if check.passed else 'FAILED'}: {told(check)}"


def told(check: Check) -> str:
    """`max-size: 348.1 MiB (365,000,000 bytes), limit 340.0 MiB (356,515,840 bytes)`."""
    spell = _SPELLED.get(check.unit, str)
    known = None not in {check.value, check.limit} and check.value != check.limit
    figures = f"{spell(check.value)}, limit {spell(check.limit)}" if known else ""
    text = ", ".join(filter(None, (figures, check.detail)))
    return f"{check.name}: {text}" if text else check.name


def _bytes(size: float | str | None) -> str:
    if not isinstance(size, float | int):
        return str(size)
    shown = mebibytes(int(size))
    return shown if shown.endswith(" B") else f"{shown} ({int(size):,} bytes)"


def _percent(share: float | str | None) -> str:
    return f"{share:+.4g}%" if isinstance(share, float | int) else str(share)


_SPELLED: Final[Mapping[str, Callable[[float | str | None], str]]] = {"bytes": _bytes, "%": _percent}


def _cost(report: Report) -> Iterator[tuple[str, str]]:
    """Yield time and memory."""
    if report.cost is not None:
        longest = max(report.cost.stages, key=lambda stage: stage.seconds, default=None)
        most = "" if longest is None else f", {longest.seconds:.1f} s of it {longest.name}"
        memory = mebibytes(report.cost.peak_rss_bytes)
        yield "Took", f"{report.cost.seconds:.1f} s{most}, at most {memory} of memory"


_SUMMARY: Final[tuple[Callable[[Report], Iterator[tuple[str, str]]], ...]] = (
    _unchecked,
    _size,
    _loadable,
    _verified,
    _bits,
    _delegation,
    _not_finite,
    _checks,
    _cost,
)
