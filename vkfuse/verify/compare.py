"""Numbers against numbers: errors, agreement, and how much error passes by the precision that they are computed in."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch.export import ExportedProgram

from vkfuse.program.widened import HALVES
from vkfuse.pte.enums import VkDataType
from vkfuse.pte.model import PteFile
from vkfuse.pte.vulkan import VkTensor, vulkan_graphs
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.moves import MOVES
from vkfuse.verify.verdict import OutputCheck

# Share of an output's largest value, by its type: sums in another order (float32); each stored activation
# rounded to 11 or 8 bits, and some accumulation (float16, bfloat16). Integers and booleans must agree.
RELATIVE_LIMITS: Final = {
    torch.float64: 1e-4,
    torch.float32: 1e-4,
    torch.float16: 1e-2,
    torch.bfloat16: 4e-2,
}
_FLOOR: Final = 1e-7  # absolute: an output that should be zero
_SMALL: Final = 1e-3  # share of the largest value under which units of the last place mean nothing
_PIECE: Final = (
    1 << 16
)  # values compared at once: with larger ones the allocator keeps holes of many times their size
_LOGITS_FROM: Final = 16  # entries in a row before its largest one is worth comparing


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """What passes: `atol + rtol * |expected|`; None is the type's limit in relation to the largest value."""

    atol: float | None = None
    rtol: float | None = None
    arithmetic: torch.dtype | None = None  # that it is computed in, where coarser than the outputs' own

    @property
    def given(self) -> bool:
        """Whether the user chose it."""
        return self.atol is not None or self.rtol is not None

    def of(self, computed: torch.dtype | None) -> "Tolerance":
        """What passes of an output that its program computes in a half-precision type."""
        kinds = [kind for kind in (self.arithmetic, computed) if kind is not None]
        return replace(self, arithmetic=max(kinds, key=RELATIVE_LIMITS.__getitem__, default=None))


def compare_outputs(index: int, got: Any, expected: Any, tolerance: Tolerance) -> OutputCheck:
    """Compare an output of a file and of its program, which callers read as one type; integers may be narrower there."""
    typed = isinstance(got, torch.Tensor) and isinstance(expected, torch.Tensor)
    if typed and got.is_floating_point() and got.dtype is not expected.dtype:
        return _unlike(index, got, expected)
    return compare(index, got, expected, tolerance)


def widened(found: OutputCheck, noise: float, tolerance: Tolerance) -> OutputCheck:
    """Judge anew with what rounding of activations makes of tiny differences (absolute) added to a limit of ours."""
    if tolerance.given:
        return found
    limit = found.limit + noise
    return replace(found, limit=limit, passed=found.max_abs <= limit)


def compare(index: int, got: Any, expected: Any, tolerance: Tolerance) -> OutputCheck:
    """Compare one output; anything but tensors must be equal."""
    if got is None or expected is None:
        return _nothing(index, got, expected)
    got, expected = _as_tensor(got), _as_tensor(expected)
    if got.shape != expected.shape or got.dtype.is_floating_point != expected.dtype.is_floating_point:
        return _unlike(index, got, expected)
    largest = largest_value(expected)
    parts = [_Part.of(expected.dtype, a, b, largest, tolerance) for a, b in _pieces(got, expected)]
    worst = _most(part.error for part in parts)
    return OutputCheck(
        index=index,
        dtype=str(expected.dtype).removeprefix("torch."),
        shape=tuple(expected.shape),
        max_abs=worst,
        max_rel=worst / largest if largest else (0.0 if worst == 0 else math.inf),
        max_ulp=_most(part.ulps for part in parts),
        cosine=_cosine(parts),
        sqnr_db=_sqnr(sum(part.noise for part in parts), sum(part.signal for part in parts)),
        top1=_top1(got, expected),
        limit=_most(part.limit for part in parts),
        passed=all(part.passed for part in parts),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What part of an output shows, `got` against `expected`: largest error and limit, lengths and products."""

    error: float
    ulps: float
    limit: float
    passed: bool
    lengths: tuple[float, float]
    product: float
    noise: float
    signal: float

    @classmethod
    def of(
        cls,
        dtype: torch.dtype,
        got: torch.Tensor,
        expected: torch.Tensor,
        largest: float,
        tolerance: Tolerance,
    ) -> "_Part":
        """Compare float64 values of one dimension, those expected of `dtype` and an output whose largest is given."""
        same = (got == expected) | (got.isnan() & expected.isnan())
        error = torch.where(same, 0.0, (got - expected).abs()).nan_to_num(nan=math.inf, posinf=math.inf)
        limit = _limits(dtype, expected, largest, tolerance)
        return cls(
            error=float(error.max()),
            ulps=_ulps(dtype, expected, error, largest),
            limit=float(limit.max()),
            passed=bool((error <= limit).all()),
            lengths=(float(got.norm()), float(expected.norm())),
            product=float(torch.dot(got, expected)),
            noise=float(error.square().sum()),
            signal=float(expected.square().sum()),
        )


def largest_value(values: torch.Tensor) -> float:
    """Return the largest finite magnitude, 0 where there is none."""
    return max((float(_finite(piece).max()) for (piece,) in _pieces(values)), default=0.0)


def largest_change(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference of two tensors of floats, 0 for empty ones."""
    return _most(float((a - b).abs().max()) for a, b in _pieces(got, expected))


def _pieces(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield the values of tensors of one shape as float64, so many at a time: an output may be large."""
    flat = [tensor.detach().reshape(-1) for tensor in tensors]
    for start in range(0, flat[0].numel(), _PIECE):
        yield tuple(values[start : start + _PIECE].double() for values in flat)


def _most(values: Iterable[float]) -> float:
    """Return the largest value, which one that is no number is."""
    return max(values, key=lambda value: (math.isnan(value), value), default=0.0)


def _finite(values: torch.Tensor) -> torch.Tensor:
    """Return magnitudes, zero for what is no number or infinite."""
    return values.abs().nan_to_num(0.0, 0.0, 0.0)


def _limits(dtype: torch.dtype, expected: torch.Tensor, largest: float, tolerance: Tolerance) -> torch.Tensor:
    """Return the largest error of each value that passes."""
    magnitude = _finite(expected)
    if tolerance.given:
        return magnitude * (tolerance.rtol or 0.0) + (tolerance.atol or 0.0)
    share = RELATIVE_LIMITS.get(dtype, 0.0)
    if share and tolerance.arithmetic is not None:
        share = max(share, RELATIVE_LIMITS[tolerance.arithmetic])
    floor = _FLOOR if share else 0.0
    return torch.full_like(magnitude, max(share * largest, floor))


def _nothing(index: int, got: Any, expected: Any) -> OutputCheck:
    """Return the verdict on outputs of which one is None at least."""
    same = got is None and expected is None
    kinds = "none" if same else f"{type(got).__name__}, not {type(expected).__name__}"
    return _without_numbers(index, kinds, (), same=same)


def _as_tensor(value: Any) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.tensor(value)


def _unlike(index: int, got: torch.Tensor, expected: torch.Tensor) -> OutputCheck:
    """Return the verdict on outputs of different shape or kind."""
    kinds = f"{got.dtype}, not {expected.dtype}".replace("torch.", "")
    return _without_numbers(index, kinds, tuple(got.shape), same=False)


def _without_numbers(index: int, dtype: str, shape: tuple[int, ...], *, same: bool) -> OutputCheck:
    """Return the verdict on outputs whose numbers are not compared."""
    error = 0.0 if same else math.inf
    return OutputCheck(
        index=index,
        dtype=dtype,
        shape=shape,
        max_abs=error,
        max_rel=error,
        max_ulp=error,
        cosine=1.0 if same else 0.0,
        sqnr_db=math.inf if same else -math.inf,
        top1=None,
        limit=0.0,
        passed=same,
    )


def _ulps(dtype: torch.dtype, expected: torch.Tensor, error: torch.Tensor, largest: float) -> float:
    """Largest error in units of the last place of `dtype`, of values that are at least a thousandth of the largest."""
    if not dtype.is_floating_point:
        return float(error.max())
    info = torch.finfo(dtype)
    least = max(largest * _SMALL, info.smallest_normal)
    magnitude = expected.abs()
    unit = torch.exp2(torch.floor(torch.log2(magnitude.clamp(min=least)))) * info.eps
    return float(torch.where(magnitude >= least, error / unit, 0.0).max())


def _cosine(parts: Sequence[_Part]) -> float:
    """Return the cosine of the angle between two vectors; 1 for two zero vectors."""
    got, expected = (math.hypot(*(part.lengths[side] for part in parts)) for side in (0, 1))
    scale = got * expected
    if scale == 0:
        return 1.0 if got == expected else 0.0
    return sum(part.product for part in parts) / scale


def _sqnr(noise: float, signal: float) -> float:
    """Return the signal to noise ratio in decibels; infinite without noise."""
    if noise == 0:
        return math.inf
    return -math.inf if signal == 0 or math.isinf(noise) else 10 * math.log10(signal / noise)


def _top1(got: torch.Tensor, expected: torch.Tensor) -> float | None:
    """Share of rows whose largest entry stands in the same place; None for what are no logits."""
    if not expected.dtype.is_floating_point or expected.dim() == 0 or expected.shape[-1] < _LOGITS_FROM:
        return None
    rows = [x.reshape(-1, expected.shape[-1]) for x in (got, expected)]
    step = max(1, _PIECE // expected.shape[-1])
    parts = [[x[at : at + step].nan_to_num().argmax(-1) for x in rows] for at in range(0, len(rows[0]), step)]
    agree = [ours == theirs for ours, theirs in parts] or [torch.zeros(0)]
    return float(torch.cat(agree).double().mean())


aten = torch.ops.aten

_UNCHANGED: Final = frozenset(
    {*MOVES, aten.embedding.default, aten.index.Tensor, aten.index_select.default, aten.select.int}
    | {aten.cat.default, aten.where.self, aten.split_with_sizes.default}
)  # every value of the result is one of the operands'


def of_file(pte: PteFile, method: str) -> torch.dtype | None:
    """float16 where the delegates of a method compute float32 in it, as `--fp16` and ExecuTorch's `force_fp16` have it."""
    graphs = (graph for place, graph in vulkan_graphs(pte).items() if place.method == method)
    tensors = (v for graph in graphs for v in graph.values if isinstance(v, VkTensor) and not v.constant)
    kinds = {(each.dtype, each.staging_dtype) for each in tensors}
    return torch.float16 if (VkDataType.FLOAT16, VkDataType.FLOAT32) in kinds else None


def coarsest(exported: ExportedProgram) -> tuple[torch.dtype | None, ...]:
    """The half-precision type of fewest digits that each user output is computed in, None where it is in none.

    What is stored or given in half and only taken from there is exact.
    """
    constants, signature = Constants(exported), exported.graph_signature
    state = {
        name
        for name, buffer in signature.inputs_to_buffers.items()
        if buffer in {*signature.buffers_to_mutate.values()}
    }
    found: dict[str, torch.dtype] = {}
    for node in exported.graph.nodes:
        own = node.name in state if node.op == "placeholder" else node.target not in _UNCHANGED
        kinds = {found[each.name] for each in node.all_input_nodes if each.name in found}
        if own and node not in constants:
            kinds |= HALVES & {getattr(node.meta.get("val"), "dtype", None)}
        if kinds:
            found[node.name] = min(kinds, key=lambda kind: -torch.finfo(kind).eps)
    return tuple(found.get(str(name)) for name in signature.user_outputs)
