"""The file before: given, or made of the same programs and measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO

from vkfuse.errors import LoweringError
from vkfuse.lower.lowering import Lowered, lower, lower_stock
from vkfuse.lower.operands import Target
from vkfuse.mapping import map_open
from vkfuse.options import BaselineChoice, Options, Progress
from vkfuse.output import scratch
from vkfuse.patch.cut import UntoldError
from vkfuse.pipeline.method import Methods, as_given, folded, made_of, to_lower
from vkfuse.pipeline.unfused import before_lookups
from vkfuse.pte import read_pte
from vkfuse.pte.reader import parse_pte
from vkfuse.pte.writer import write_pte
from vkfuse.report.build import Measured, measure
from vkfuse.report.model import Baseline, BaselineKind
from vkfuse.report.whole import baseline_of
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.operators.lookup import PLAIN
from vkfuse.runtime.versions import find_runtime

_ON_CPU = {PLAIN: Objection(Code.BASELINE, "before the fused lookup it ran on the CPU")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What the report says of the file before, its measures, and the methods as it has them where they are planned."""

    baseline: Baseline
    measured: Measured | None = None
    methods: Methods = ()


def baseline_file(options: Options) -> Before | None:
    """The file that the options name, None where they name a kind. InputError, FormatError."""
    if options.given_baseline is None:
        return None
    given = measure(read_pte(options.given_baseline), options.runtime)
    return Before(baseline=baseline_of("file", given), measured=given)


def baseline_made(
    methods: Methods, after: Measured, options: Options, progress: Progress, keep: Path | None = None
) -> Before:
    """The file of the kind that the options name, made, measured, and written to `keep`.

    A folded one is made from the written file, and where that cannot tell it, lowered.
    """
    match options.baseline:
        case BaselineChoice.NONE:
            return Before(baseline=Baseline(kind="none", bytes=None, loadable=None))
        case BaselineChoice.STOCK:
            progress("lowering the stock baseline")
            return _lowered(
                "stock", lambda: ((), lower_stock(as_given(methods), options.vulkan)), options, keep
            )
    before = folded(methods)
    progress("making the folded baseline")
    try:
        return _edited(before, methods, after, options, keep)
    except UntoldError as error:
        reason = str(error)
    progress("lowering the folded baseline")
    made = _folded(before, options, keep)
    return replace(made, baseline=_noted(made.baseline, f"lowered anew, since {reason}"))


def _noted(baseline: Baseline, how: str) -> Baseline:
    """Say how a baseline was made, after what it says already."""
    return replace(baseline, note="; ".join(filter(None, (baseline.note, how))))


def _edited(
    before: Methods, methods: Methods, after: Measured, options: Options, keep: Path | None
) -> Before:
    """Make the folded file of the written one. UntoldError where that cannot be, or it would not load."""
    with before_lookups(methods, after.pte, options) as file:
        reasons = {m.name: {**after.reasons.get(m.name, {}), **_ON_CPU} for m in methods}
        write = partial(write_pte, file, as_lowered=True)
        made = _measured("folded", write, reasons, before, options, keep)
    if not made.baseline.loadable:
        raise UntoldError("the file made of the written one would not load")
    return replace(made, baseline=_noted(made.baseline, "made of the written file"))


def _folded(before: Methods, options: Options, keep: Path | None) -> Before:
    """Lower the methods as they were planned before; their caches are where they are in the written file."""
    target = Target(runtime=find_runtime(options.runtime), operators=_ON_CPU)

    def lowered(ready: Methods) -> tuple[Methods, Lowered]:
        return ready, lower(to_lower(ready), target, options.vulkan)

    return _lowered("folded", lambda: made_of(before, options, lowered), options, keep)


def _lowered(
    kind: BaselineKind, make: Callable[[], tuple[Methods, Lowered]], options: Options, keep: Path | None
) -> Before:
    """Lower a baseline, or say why there is none."""
    try:
        methods, lowered = make()
    except LoweringError as error:
        return Before(baseline=Baseline(kind=kind, bytes=None, loadable=False, note=error.message))
    return _measured(kind, lowered.write, lowered.reasons, methods, options, keep)


def _measured(
    kind: BaselineKind,
    write: Callable[[IO[bytes]], object],
    reasons: Mapping[str, Mapping[str, Objection]],
    methods: Methods,
    options: Options,
    keep: Path | None,
) -> Before:
    """Write a baseline, to a temporary file where it is not kept, and measure it."""
    with scratch() if keep is None else keep.open("w+b") as stream:
        write(stream)
        stream.flush()
        stream.seek(0)
        pte = parse_pte(map_open(stream, kind))
    measured = measure(pte, options.runtime, reasons=reasons)
    return Before(baseline=baseline_of(kind, measured), measured=measured, methods=methods)
