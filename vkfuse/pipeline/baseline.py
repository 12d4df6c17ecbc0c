"""The file before: given, or made of the same programs and measured."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vkfuse.errors import LoweringError
from vkfuse.lower.lowering import Lowered, lower, lower_stock
from vkfuse.lower.operands import Target
from vkfuse.mapping import map_open
from vkfuse.options import BaselineChoice, Options, Progress
from vkfuse.output import scratch
from vkfuse.pipeline.method import Methods, as_given, folded, prepared, to_lower
from vkfuse.pte import read_pte
from vkfuse.pte.reader import parse_pte
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
    if isinstance(options.baseline, BaselineChoice):
        return None
    given = measure(read_pte(options.baseline), options.runtime)
    return Before(baseline=baseline_of("file", given), measured=given)


def baseline_made(methods: Methods, options: Options, progress: Progress, keep: Path | None = None) -> Before:
    """The file of the kind that the options name, made, measured, and written to `keep`."""
    if options.baseline is BaselineChoice.NONE:
        return Before(baseline=Baseline(kind="none", bytes=None, loadable=None))
    progress(f"lowering the {options.baseline} baseline")
    if options.baseline is BaselineChoice.STOCK:
        return _written("stock", lambda: lower_stock(as_given(methods), options.vulkan), (), options, keep)
    before = prepared(folded(methods), options, in_place=False)
    target = Target(runtime=find_runtime(options.runtime), operators=_ON_CPU)
    return _written("folded", lambda: lower(to_lower(before), target, options.vulkan), before, options, keep)


def _written(
    kind: BaselineKind, make: Callable[[], Lowered], methods: Methods, options: Options, keep: Path | None
) -> Before:
    """Write a baseline, to a temporary file where it is not kept, and measure it, or say why there is none."""
    try:
        lowered = make()
    except LoweringError as error:
        return Before(baseline=Baseline(kind=kind, bytes=None, loadable=False, note=error.message))
    with scratch() if keep is None else keep.open("w+b") as stream:
        lowered.write(stream)
        stream.flush()
        stream.seek(0)
        pte = parse_pte(map_open(stream, kind))
    measured = measure(pte, options.runtime, reasons=lowered.reasons)
    return Before(baseline=baseline_of(kind, measured), measured=measured, methods=methods)
