"""Run a file and the file that it was made from side by side, and judge."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import sympy  # type: ignore[import-untyped]
import torch

from vkfuse.errors import CheckFailedError
from vkfuse.measure.audit import TableCheck, Wanted, audit
from vkfuse.measure.kernel_tables import kernel_table
from vkfuse.measure.stored import factor_of, whole_tables
from vkfuse.measure.tables import ConstantTensor, float_matmuls, table_reads
from vkfuse.program.lean import one_thread
from vkfuse.pte.delegates import vulkan_delegates
from vkfuse.pte.enums import ScalarType, ShapeDynamism
from vkfuse.pte.model import DelegateCall, Method, PteFile, Tensor
from vkfuse.pte.place import Place
from vkfuse.pte.vulkan import VulkanGraph
from vkfuse.tables.proof import Rows
from vkfuse.verify.compare import compare, of_file
from vkfuse.verify.domain import ORDERS_VALUES, Domain
from vkfuse.verify.inputs import Sample, accepted, samples, synthetic
from vkfuse.verify.session import Session, run_file
from vkfuse.verify.steps import Argument
from vkfuse.verify.verdict import Run, Verification, first_difference, judged
from vkfuse.verify.verify import VerifyOptions


@one_thread()
def verify_against_file(new: PteFile, old: PteFile, options: VerifyOptions) -> Verification:
    """Say whether a method of a file computes what that of another does, on inputs in range and at extreme lengths.

    What is wrong with the new file is in the verdict; InputError and FormatError are about what was given.
    """
    return judged(lambda: _judged(new, old, options))


def _judged(new: PteFile, old: PteFile, options: VerifyOptions) -> Verification:
    ours, theirs = run_file(new, options.method, runtime=options.runtime), Session(old, options.method)
    domain = domain_of_file(old, theirs.method)
    skipped: list[str] = []
    example = _given(options) or synthetic(domain, theirs.method.input_values)
    halves = {of_file(file, options.method) for file in (new, old)}
    if len(halves) > 1:
        options = replace(options, tolerance=options.tolerance.of(torch.float16))
    runs = tuple(_runs(samples(example, domain, options.seeds), ours, theirs, options, skipped))
    tables = tuple(_tables(new, old, options.method))
    difference = first_difference(runs, tables)
    return Verification(
        status="differs" if difference else "same" if runs else "cannot-verify",
        message=difference,
        runs=runs,
        tables=tables,
        skipped=tuple(skipped),
    )


def _given(options: VerifyOptions) -> tuple[Argument, ...] | None:
    """The user's inputs."""
    return None if options.inputs is None else tuple(options.inputs[0])  # type: ignore[arg-type]


def _runs(
    cases: Iterator[Sample], ours: Session, theirs: Session, options: VerifyOptions, skipped: list[str]
) -> Iterator[Run]:
    """Yield a run of each sample that the old file takes, of one less extreme otherwise."""
    taken = accepted(
        cases, lambda of: _fresh(theirs, of), CheckFailedError, skipped, "the file before fails: "
    )
    for sample, expected in taken:
        pairs = enumerate(zip(_fresh(ours, sample), expected, strict=True))
        outputs = tuple(compare(index, got, want, options.tolerance) for index, (got, want) in pairs)
        yield Run(label=sample.label, outputs=outputs)


def _fresh(session: Session, sample: Sample) -> tuple[Argument, ...]:
    """What a file computes of a sample that no other call is before."""
    session.reset()
    return session(sample.values)


def domain_of_file(file: PteFile, method: Method) -> Domain:
    """Read what inputs a method takes from the file: rows of tables that inputs index, sizes as upper bounds.

    A file does not say which dimensions of a dynamic tensor are: all but those of 1 are taken for it, equal ones for one.
    """
    tensors = {at: spec for at, spec in enumerate(method.input_values) if isinstance(spec, Tensor)}
    dynamic = {
        size
        for spec in tensors.values()
        if spec.dynamism is not ShapeDynamism.STATIC
        for size in spec.sizes
        if size > 1
    }
    symbols = {size: sympy.Symbol(f"s{size}", positive=True, integer=True) for size in sorted(dynamic)}
    rows = _rows(file, method)
    return Domain(
        rows={at: rows[index] for at, index in enumerate(method.inputs) if index in rows},
        shapes={
            at: tuple(
                size if spec.dynamism is ShapeDynamism.STATIC else symbols.get(size, size)
                for size in spec.sizes
            )
            for at, spec in tensors.items()
        },
        bounds={symbol: (1, size) for size, symbol in symbols.items()},
    )


def _rows(file: PteFile, method: Method) -> dict[int, int]:
    """Rows of the smallest table that a value of the method indexes, by the value."""
    found: dict[int, int] = {}
    for read in table_reads(file):
        if read.where.method == method.name and read.indices is not None:
            for index in _given_for(file, method, read.where, read.indices):
                count = read.weight.dims[0]
                found[index] = min(count, found.get(index, count))
    return found


def _given_for(file: PteFile, method: Method, where: Place, indices: int) -> Iterator[int]:
    """Yield the values of the method that a lookup's indices come from: themselves, or what its delegate is called with."""
    if where.delegate is None:
        yield indices
        return
    graph = vulkan_delegates(file)[where.around].graph
    source = _source(graph, indices)
    for entry in method.instructions:
        if isinstance(entry, DelegateCall) and entry.delegate_index == where.delegate:
            of = zip(graph.input_ids, entry.args, strict=False)
            yield from (argument for index, argument in of if index == source)


def _source(graph: VulkanGraph, index: int) -> int:
    """Follow a value of a graph back through operators that only order or copy values."""
    made = {call.args[-1]: call for call in graph.chain if call.args}
    for _ in graph.chain:
        call = made.get(index)
        if call is None or call.name.split(".")[1] not in ORDERS_VALUES:
            break
        index = call.args[0]
    return index


def _tables(new: PteFile, old: PteFile, method: str) -> Iterator[TableCheck]:
    """Compare the tables of both files, as their operators read them."""
    ours, theirs = (
        [read for read in table_reads(file) if read.where.method == method] for file in (new, old)
    )
    of_kernels = ((read, kernel_table(read)) for read in theirs if read.where.delegate is None)
    products = ((read, factor_of(read)) for read in float_matmuls(old) if read.where.method == method)
    wanted = [
        *(
            _wanted(table.weight, table.consumer, (table.rows, table.columns), table.read, table.kind)
            for table in whole_tables(theirs)
        ),
        *(
            _wanted(read.weight, "matmul", of.shape, of.rows, of.kind)
            for read, of in products
            if of is not None
        ),
        *(
            _wanted(read.weight, read.reader.consumer, of.shape, of.rows, of.kind)
            for read, of in of_kernels
            if of is not None
        ),
    ]
    yield from audit(whole_tables(ours), wanted)


def _wanted(
    weight: ConstantTensor, consumer: str, shape: Sequence[int], read: Rows, kind: ScalarType
) -> Wanted:
    rows, columns = shape
    return Wanted(
        name=weight.shown, consumer=consumer, rows=rows, columns=columns, open=lambda: read, kind=kind
    )
