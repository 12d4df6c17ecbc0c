"""Which axes of a result vary in a run, by those of the operands: what a record says of the shapes of its operator."""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeAlias

from vkfuse.runtime.operands import Operands, Symbol, Tensor, Value

OUTPUT: Final = "out"
NUMBER: Final = -1  # in the place of an axis: an integer by itself
_ANY: Final = ""  # an operand that stands for all axes of one


class Axis(NamedTuple):
    """An axis of an argument by name, or of OUTPUT; of the `member` of a list."""

    operand: str
    at: int
    member: int = 0


class Follows(NamedTuple):
    """An `axis` varies only if one of `others` does; if `surely`, whenever one does. With no others it never varies."""

    axis: Axis
    others: tuple[Axis, ...] = ()
    surely: bool = True


Axes: TypeAlias = Callable[[Operands], Iterator[Follows]]


def axes_of(operand: str, value: Value, member: int = 0) -> Iterator[Axis]:
    """Yield the axes of a tensor, of a list's members, or the number that a symbol is."""
    if isinstance(value, tuple):
        for at, each in enumerate(value):
            yield from axes_of(operand, each, at)
    elif isinstance(value, Tensor):
        yield from (Axis(operand, at, member) for at in range(len(value.dims)))
    elif isinstance(value, Symbol):
        yield Axis(operand, NUMBER, member)


def followed(axes: Axes | None, ops: Operands) -> Iterator[Follows]:
    """Yield what a record says; what it leaves open of the output may vary with anything."""
    told = [] if axes is None else [each for each in axes(ops) if _is_of(ops, each)]
    yield from told
    known = {each.axis for each in told}
    everything = tuple(axis for name, value in ops.values.items() for axis in axes_of(name, value))
    for axis in axes_of(OUTPUT, ops.output):
        if axis not in known:
            yield Follows(axis, everything, surely=False)


def _is_of(ops: Operands, each: Follows) -> bool:
    """Whether a call has what is spoken of: that of a broken file may have fewer arguments."""
    return all(axis.operand in {_ANY, OUTPUT, *ops.values} for axis in (each.axis, *each.others))


def _same(ops: Operands, name: str, pairs: Iterator[tuple[int, int]], member: int = 0) -> Iterator[Follows]:
    """Pair axes of an argument with those of an output, where both have them."""
    source, outs = ops.tensor(name), ops.outs
    for at, to in pairs:
        if source and member < len(outs) and at < len(source.dims) and to < len(outs[member].dims):
            yield Follows(Axis(OUTPUT, to, member), (Axis(name, at),))


def elementwise(ops: Operands) -> Iterator[Follows]:
    """Sizes that are not one are equal, counted from the last."""
    for member, out in enumerate(ops.outs):
        for name, value in ops.values.items():
            dims = value.dims if isinstance(value, Tensor) else ()
            for back in range(1, 1 + min(len(dims), len(out.dims))):
                if 1 != dims[-back] == out.dims[-back]:
                    to = Axis(OUTPUT, len(out.dims) - back, member)
                    yield Follows(to, (Axis(name, len(dims) - back),))


def axis_by_axis(*names: str) -> Axes:
    """Each axis follows the same of an argument, whatever becomes of its size; of the outputs each its own argument."""

    def axes(ops: Operands) -> Iterator[Follows]:
        for member, name in enumerate(names):
            yield from _same(ops, name, ((at, at) for at in range(_rank(ops, name))), member)

    return axes


def by_channel(ops: Operands) -> Iterator[Follows]:
    """Each axis by itself; channels are a weight's."""
    yield from axis_by_axis("input")(ops)
    yield Follows(Axis("input", 1))


def times_a_weight(ops: Operands) -> Iterator[Follows]:
    """Rows of `input` by a constant matrix."""
    last = _rank(ops, "input") - 1
    yield from _same(ops, "input", ((at, at) for at in range(last)))
    yield Follows(Axis("input", last))
    yield Follows(Axis(OUTPUT, last))


def product(ops: Operands) -> Iterator[Follows]:
    """mat1 [..., n, k] by mat2 [..., k, m]."""
    rank = _rank(ops, "mat1")
    yield from _same(ops, "mat1", ((at, at) for at in range(rank - 1)))
    yield from _same(ops, "mat2", ((at, at) for at in (*range(rank - 2), rank - 1)))
    yield Follows(Axis("mat1", rank - 1), (Axis("mat2", rank - 2),))


def convolved(ops: Operands) -> Iterator[Follows]:
    """Channels are a weight's."""
    rank = _rank(ops, "input")
    yield from _same(ops, "input", ((at, at) for at in (0, *range(2, rank))))
    yield from (Follows(Axis(name, 1)) for name in ("input", OUTPUT))


def rows_at_indices(ops: Operands) -> Iterator[Follows]:
    """A row of a constant for each of `indices`."""
    rank = _rank(ops, "indices")
    yield from _same(ops, "indices", ((at, at) for at in range(rank)))
    yield Follows(Axis(OUTPUT, rank))


def selected_along(ops: Operands) -> Iterator[Follows]:
    """`self`, with the elements of `index` along `dim`."""
    dim, rank = _dim(ops), _rank(ops, "self")
    if dim is not None:
        yield from _same(ops, "self", ((at, at) for at in range(rank) if at != dim))
        yield from _same(ops, "index", ((0, at) for at in (dim,)))


def without(name: str = "self") -> Axes:
    """`name` without the axes `dim`, which stay as one where the rank stays."""

    def axes(ops: Operands) -> Iterator[Follows]:
        rank, out = _rank(ops, name), ops.out
        given = ops.integers("dim") or (() if (dim := ops.integer("dim")) is None else (dim,))
        gone = {dim % rank for dim in given} if rank else set()
        if out and gone:
            kept = [at for at in range(rank) if at not in gone]
            whole = len(out.dims) == rank
            yield from _same(ops, name, ((at, at if whole else to) for to, at in enumerate(kept)))

    return axes


def with_another(ops: Operands) -> Iterator[Follows]:
    """`self` with an axis of one at `dim`."""
    dim, rank = ops.integer("dim"), _rank(ops, "self")
    if dim is not None:
        yield from _same(ops, "self", ((at, at + (at >= dim % (rank + 1))) for at in range(rank)))


def permuted(ops: Operands) -> Iterator[Follows]:
    """The axes of `self` in the order `dims`."""
    order, rank = ops.integers("dims"), _rank(ops, "self")
    if order is not None and rank:
        yield from _same(ops, "self", ((at % rank, to) for to, at in enumerate(order)))


def viewed(ops: Operands) -> Iterator[Follows]:
    """Sizes are numbers, symbols, or left open; something varies in front of a view where something does behind it."""
    yield from sized(ops)
    for name, value in (("self", ops.value("self")), (OUTPUT, ops.out)):
        yield Follows(Axis(_ANY, 0), tuple(axes_of(name, value)))


def sized(ops: Operands) -> Iterator[Follows]:
    """The output has the sizes of the list `size`."""
    for at, size in enumerate(ops.members("size")):
        if isinstance(size, Symbol):
            yield Follows(Axis(OUTPUT, at), (Axis("size", NUMBER, at),))
        elif isinstance(size, int) and size >= 0:
            yield Follows(Axis(OUTPUT, at))


def expanded(ops: Operands) -> Iterator[Follows]:
    """The sizes of a list, of which negative ones stay."""
    sizes = ops.members("size")
    yield from sized(ops)
    more = len(sizes) - _rank(ops, "self")
    kept = (at for at, size in enumerate(sizes) if isinstance(size, int) and size < 0)
    yield from _same(ops, "self", ((at - more, at) for at in kept if at >= more))


def repeated(ops: Operands) -> Iterator[Follows]:
    """`self` by fixed counts, new axes in front."""
    counts = ops.integers("repeats")
    if counts is not None:
        more = len(counts) - _rank(ops, "self")
        yield from _same(ops, "self", ((at - more, at) for at in range(max(0, more), len(counts))))
        yield from (Follows(Axis(OUTPUT, at)) for at in range(more))


def joined(ops: Operands) -> Iterator[Follows]:
    """Along `dim` the sum of all, else what each of them is."""
    parts, out = ops.members("tensors"), ops.out
    rank = len(out.dims) if out else 0
    dim = (ops.integer("dim") or 0) % max(1, rank)
    for at in range(rank):
        sizes = tuple(Axis("tensors", at, of) for of in range(len(parts)))
        if at == dim:
            yield Follows(Axis(OUTPUT, at), sizes)
        else:
            yield from (Follows(Axis(OUTPUT, at), (size,)) for size in sizes)


def sliced(ops: Operands) -> Iterator[Follows]:
    """A slice up to an end that moves with the size varies with it; one of fixed ends perhaps."""
    source, dim = ops.tensor("self"), _dim(ops)
    if source is None or dim is None:
        return
    yield from _same(ops, "self", ((at, at) for at in range(len(source.dims)) if at != dim))
    start, end = ops.value("start"), ops.value("end")
    moves = end is None or (isinstance(end, int) and not 0 <= end < source.dims[dim])
    if moves and (start is None or (isinstance(start, int) and start >= 0)):
        yield from _same(ops, "self", ((at, at) for at in (dim,)))


def parted(ops: Operands) -> Iterator[Follows]:
    """Parts of fixed sizes along `dim`."""
    sizes, dim, rank = ops.integers("split_sizes"), _dim(ops), _rank(ops, "self")
    if sizes is None or dim is None:
        return
    yield Follows(Axis("self", dim))
    for member in range(len(sizes)):
        yield Follows(Axis(OUTPUT, dim, member))
        yield from _same(ops, "self", ((at, at) for at in range(rank) if at != dim), member)


def counted(ops: Operands) -> Iterator[Follows]:
    """Numbers between bounds: one axis, or, of arithmetic on sizes, a number itself."""
    symbols = tuple(axis for name, value in ops.values.items() for axis in axes_of(name, value))
    yield from (Follows(axis, symbols, surely=len(symbols) == 1) for axis in axes_of(OUTPUT, ops.output))


def size_of(ops: Operands) -> Iterator[Follows]:
    """A size that a graph asks for is one that varies: others are numbers when it is exported."""
    dim = _dim(ops)
    if dim is not None:
        yield Follows(Axis(OUTPUT, NUMBER), (Axis("self", dim),))
        yield Follows(VARIES, (Axis("self", dim),))


VARIES: Final = Axis(_ANY, NUMBER)  # what does


def _rank(ops: Operands, name: str) -> int:
    tensor = ops.tensor(name)
    return len(tensor.dims) if tensor else 0


def _dim(ops: Operands) -> int | None:
    """The argument `dim` of `self`, counted from the first."""
    dim, rank = ops.integer("dim"), _rank(ops, "self")
    return dim % rank if dim is not None and rank else None
