"""Inputs to compare on: the example, random ones like it, edge rows of tables, extreme lengths."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Final, TypeVar

import sympy  # type: ignore[import-untyped]
import torch

from vkfuse.errors import InputError, VkfuseError
from vkfuse.pte.model import Tensor, Value
from vkfuse.verify.domain import Domain
from vkfuse.verify.steps import Argument
from vkfuse.verify.tensors import scalar_dtype

_USUAL_LENGTH: Final = 64
_INWARD_STEPS: Final = 4
_EXAMPLE: Final = "example"
_Made = TypeVar("_Made")
Lengths = Mapping[sympy.Symbol, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Flat inputs and how they came about; `others` makes some to take instead where a program does not take these.

    `earlier` are the inputs of calls before it, whose state it finds.
    """

    label: str
    values: tuple[Argument, ...]
    earlier: tuple[tuple[Argument, ...], ...] = ()
    others: Callable[[], Iterable["Sample"]] = tuple

    @property
    def drawn(self) -> bool:
        """Whether nobody gave it."""
        return self.label != _EXAMPLE

    @property
    def calls(self) -> tuple[tuple[Argument, ...], ...]:
        """Inputs of all calls, its own last."""
        return *self.earlier, self.values


def samples(
    example: tuple[Argument, ...], domain: Domain, seeds: int, *, stateful: bool = False
) -> Iterator[Sample]:
    """Yield the example, where calls leave state one after others, `seeds` random ones, edge rows, extreme lengths.

    InputError for a bad example.
    """
    lengths = _example_lengths(example, domain)
    yield Sample(label=_EXAMPLE, values=example)
    if stateful:
        yield from _in_a_row(example, domain, seeds)
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        drawn = _random_lengths(lengths, domain, seed, generator)
        yield _sample(f"random {seed}", example, domain, (drawn,), generator)
    if domain.rows:
        yield Sample(label="first and last rows", values=_edge_rows(example, domain))
    for label, pick in (("shortest", 0), ("longest", 1)):
        extreme = {symbol: bounds[pick] for symbol, bounds in domain.bounds.items()}
        if extreme and extreme != lengths:
            generator = torch.Generator().manual_seed(seeds + pick)
            yield _sample(label, example, domain, [*_inward(extreme, lengths)], generator)


def _sample(
    label: str,
    example: tuple[Argument, ...],
    domain: Domain,
    lengths: Sequence[Lengths],
    generator: torch.Generator,
) -> Sample:
    """Draw values of the first lengths; the others' are drawn when they are asked for, and have flags as the example."""

    def others() -> Iterator[Sample]:
        for each in (lengths[0], *lengths):
            drawn = _random(example, domain, each, generator)
            yield Sample(label=label, values=tuple(map(_flagged, drawn, example)))

    return Sample(label=label, values=_random(example, domain, lengths[0], generator), others=others)


def _flagged(drawn: Argument, value: Argument) -> Argument:
    """Drawn values; flags as they are in the example's, which are repeated if shorter."""
    flags = isinstance(value, torch.Tensor) and value.dtype is torch.bool and value.numel()
    return _repeated(value, drawn.shape) if flags else drawn  # type: ignore[union-attr, arg-type]


def accepted(
    cases: Iterable[Sample],
    attempt: Callable[[Sample], _Made],
    refuses: type[VkfuseError],
    skipped: list[str],
    why: str = "",
) -> Iterator[tuple[Sample, _Made]]:
    """Yield what `attempt` makes of each sample, or of another in its place where it `refuses` that.

    `skipped` gets what is refused in any form, and why; an InputError that the example is refused with is raised.
    """
    for case in cases:
        refusal: VkfuseError | None = None
        for sample in chain((case,), case.others()):
            try:
                yield sample, attempt(sample)
            except refuses as error:
                refusal = refusal or error
            else:
                break
        else:
            if isinstance(refusal, InputError) and not case.drawn:
                raise refusal
            skipped.append(f"{case.label}: {why}{refusal}")


def _in_a_row(example: tuple[Argument, ...], domain: Domain, seeds: int) -> Iterator[Sample]:
    """The last two of several calls, of the example's lengths: what is wrong in every second call is in one of them."""
    lengths = _example_lengths(example, domain)
    generator = torch.Generator().manual_seed(seeds + 2)
    first, second, last = (_random(example, domain, lengths, generator) for _ in range(3))
    yield Sample(label="third call in a row", values=second, earlier=(example, first))
    yield Sample(label="fourth call in a row", values=last, earlier=(example, first, second))


def _inward(extreme: Lengths, usual: Lengths) -> Iterator[Lengths]:
    """Yield extreme lengths, and some that are one nearer to the usual ones each."""
    current = dict(extreme)
    for _ in range(_INWARD_STEPS):
        yield dict(current)
        if current == usual:
            return
        for symbol, length in current.items():
            current[symbol] = length + (usual[symbol] > length) - (usual[symbol] < length)


def synthetic(domain: Domain, specs: Sequence[Value]) -> tuple[Argument, ...]:
    """Return an example for a file's inputs where none is stored, of lengths about 8. InputError for non-tensors."""
    lengths = {symbol: min(high, max(low, 8)) for symbol, (low, high) in domain.bounds.items()}
    generator = torch.Generator().manual_seed(0)
    values: list[Argument] = []
    for position, spec in enumerate(specs):
        sizes = domain.sizes(position, lengths)
        if sizes is None or not isinstance(spec, Tensor):
            raise InputError(f"input {position} is no tensor, and no example is stored", hint="pass --inputs")
        dtype = scalar_dtype(spec.scalar_type, f"inputs[{position}]")
        values.append(_plain(sizes, dtype, domain.rows.get(position), generator))
    return tuple(values)


def _plain(
    sizes: tuple[int, ...], dtype: torch.dtype, rows: int | None, generator: torch.Generator
) -> torch.Tensor:
    if dtype is torch.bool:
        return torch.ones(sizes, dtype=dtype)
    if dtype.is_floating_point:
        return torch.randn(sizes, generator=generator).to(dtype)
    return torch.randint(0, rows or 2, sizes, generator=generator).to(dtype)


def _example_lengths(example: tuple[Argument, ...], domain: Domain) -> dict[sympy.Symbol, int]:
    """Return the symbols' values in the example, as far as a dimension is a symbol by itself."""
    found: dict[sympy.Symbol, int] = {}
    for position, shape in domain.shapes.items():
        value = example[position] if position < len(example) else None
        if not isinstance(value, torch.Tensor) or value.dim() != len(shape):
            raise InputError(f"input {position} is no tensor of {len(shape)} dimensions")
        for size, actual in zip(shape, value.shape, strict=True):
            if isinstance(size, sympy.Symbol):
                found.setdefault(size, actual)
    return {symbol: found.get(symbol, low) for symbol, (low, _) in domain.bounds.items()}


def _random_lengths(lengths: Lengths, domain: Domain, seed: int, generator: torch.Generator) -> Lengths:
    """Return the example's lengths for the first seed, any allowed and not very long ones for the others."""
    if seed == 0:
        return lengths
    drawn: dict[sympy.Symbol, int] = {}
    for symbol, (low, high) in domain.bounds.items():
        most = min(high, max(_USUAL_LENGTH, 2 * lengths[symbol]))
        drawn[symbol] = int(torch.randint(low, max(low, most) + 1, (), generator=generator))
    return drawn


def _random(
    example: tuple[Argument, ...], domain: Domain, lengths: Lengths, generator: torch.Generator
) -> tuple[Argument, ...]:
    return tuple(
        _drawn(value, position, domain, lengths, generator) if isinstance(value, torch.Tensor) else value
        for position, value in enumerate(example)
    )


def _drawn(
    value: torch.Tensor, position: int, domain: Domain, lengths: Lengths, generator: torch.Generator
) -> torch.Tensor:
    """Random values; distinct rows lie side by side, in any order, so that they are distinct in a ring too."""
    sizes, rows = domain.sizes(position, lengths), domain.rows.get(position)
    shape = tuple(value.shape) if sizes is None else sizes
    count = prod(shape)
    if rows is None or position not in domain.distinct or count > rows:
        return _like(value, shape, rows, generator)
    start = torch.randint(0, rows - count + 1, (), generator=generator)
    return (start + torch.randperm(count, generator=generator)).reshape(shape).to(value.dtype)


def _like(
    value: torch.Tensor, shape: tuple[int, ...], rows: int | None, generator: torch.Generator
) -> torch.Tensor:
    """Return random values in the range of an example's; of a table's rows where `rows` is given."""
    if rows is not None:
        return torch.randint(0, rows, shape, generator=generator).to(value.dtype)
    if not value.numel():
        return value.new_zeros(shape)
    if value.dtype is torch.bool:
        share = float(value.double().mean())
        return torch.rand(shape, generator=generator) < share
    if value.dtype.is_floating_point and not bool(value.isfinite().all()):
        return _with_holes(value, shape, generator)
    low, high = value.min(), value.max()
    if not value.dtype.is_floating_point:
        end = min(int(high) + 1, torch.iinfo(torch.int64).max)
        return torch.randint(min(int(low), end - 1), end, shape, generator=generator).to(value.dtype)
    drawn = torch.randn(shape, generator=generator) * _spread(value) + float(value.double().mean())
    return drawn.clamp(float(low), float(high)).to(value.dtype)


def _with_holes(value: torch.Tensor, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return values like the finite ones, and the others where they are in the example, which is repeated if shorter."""
    finite = value[value.isfinite()]
    drawn = _like(finite, shape, None, generator)
    pattern = _repeated(value, shape)
    return drawn.where(pattern.isfinite(), pattern)


def _repeated(value: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    for axis, size in enumerate(shape):
        value = value.index_select(axis, torch.arange(size) % value.shape[axis])
    return value


def _spread(value: torch.Tensor) -> float:
    return float(value.double().std()) if value.numel() > 1 else 0.0


def _edge_rows(example: tuple[Argument, ...], domain: Domain) -> tuple[Argument, ...]:
    """Return the example with first and last rows in turn as indices."""
    values = list(example)
    for position, rows in domain.rows.items():
        value = values[position]
        if isinstance(value, torch.Tensor):
            at = torch.arange(value.numel()).reshape(value.shape)
            apart = position in domain.distinct and value.numel() <= rows
            inward = at // 2 if apart else torch.zeros_like(at)
            values[position] = torch.where(at % 2 == 0, inward, rows - 1 - inward).to(value.dtype)
    return tuple(values)
