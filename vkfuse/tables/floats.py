"""Numbers of a table as numpy arrays; bfloat16, which numpy has not, is widened to float32 and rounded there."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vkfuse.pte.enums import ScalarType

Array = npt.NDArray[Any]

_AS_THEY_ARE: Final = "BYTE CHAR SHORT INT LONG HALF FLOAT DOUBLE BOOL UINT16 UINT32 UINT64"
_OF_NUMPY: Final = {np.dtype(ScalarType[name].label): ScalarType[name] for name in _AS_THEY_ARE.split()}
NUMPY: Final[Mapping[ScalarType, type[np.generic]]] = {
    **{kind: dtype.type for dtype, kind in _OF_NUMPY.items()},
    ScalarType.BFLOAT16: np.float32,
}
_FLOATS: Final = {ScalarType.HALF, ScalarType.BFLOAT16, ScalarType.FLOAT, ScalarType.DOUBLE}
_MAGNITUDE, _NORMAL = (
    np.uint16(0x7FFF),
    np.uint16(0x0400),
)  # of a half: all but its sign, the smallest normal one
_EPS: Final = {ScalarType.HALF: 2.0**-10, ScalarType.BFLOAT16: 2.0**-7}


def kind_of(array: Array) -> ScalarType:
    """Return the type of an array's numbers."""
    return _OF_NUMPY[array.dtype]


def coarseness(kind: ScalarType) -> float:
    """Step from 1 to the next number of a float type that is coarser than float32, else 0."""
    return _EPS.get(kind, 0.0)


def rounded(values: Array, kind: ScalarType) -> Array:
    """`values` as numbers of the type `kind`, ties to even; bfloat16 in float32."""
    if kind is ScalarType.BFLOAT16:
        return _to_bfloat16(values.astype(np.float32, copy=False))
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(NUMPY[kind], copy=False)


def _to_bfloat16(values: Array) -> Array:
    bits = np.ascontiguousarray(values).view(np.uint32)
    nearest = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(values), values, nearest.view(np.float32))


def widened(bits: Array) -> Array:
    """float32 numbers of bfloat16's bits (uint16 or int16, any shape)."""
    return (bits.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def halves(values: Array) -> Array | None:
    """`values` as float16, None where any would change or is subnormal then, which a GPU may take for zero."""
    half = rounded(values, ScalarType.HALF)
    bits = half.view(np.uint16) & _MAGNITUDE
    tiny = (bits > 0) & (bits < _NORMAL)
    return None if bool(tiny.any()) or not np.array_equal(half.astype(values.dtype), values) else half


def is_float(kind: ScalarType) -> bool:
    """Whether a type is one of floats."""
    return kind in _FLOATS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Numbers:
    """Numbers of a file as they are stored, bfloat16 by its bits; what is read of them is widened."""

    stored: Array
    kind: ScalarType

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes as they are read."""
        return self.stored.shape

    @property
    def is_float(self) -> bool:
        """Whether they are floats."""
        return is_float(self.kind)

    def rows(self, low: int, high: int) -> Array:
        """Part [low, high) of the outermost dimension."""
        part = self.stored[low:high]
        return widened(np.ascontiguousarray(part)) if self.kind is ScalarType.BFLOAT16 else part

    def shaped(self, *shape: int) -> "Numbers":
        """The same numbers of another shape."""
        return replace(self, stored=self.stored.reshape(shape))

    def turned(self) -> "Numbers":
        """The same matrix with rows and columns exchanged."""
        return replace(self, stored=self.stored.T)


def numbers(
    data: memoryview, kind: ScalarType, sizes: tuple[int, ...], order: tuple[int, ...] | None = None
) -> Numbers | None:
    """View bytes as numbers of `sizes` that lie in `order`, outermost first, without a copy; None for unknown types."""
    dtype = np.uint16 if kind is ScalarType.BFLOAT16 else NUMPY.get(kind)
    if dtype is None:
        return None
    axes = order or tuple(range(len(sizes)))
    flat = (
        np.frombuffer(data, dtype=dtype, count=math.prod(sizes)) if math.prod(sizes) else np.empty(0, dtype)
    )
    laid = flat.reshape([sizes[axis] for axis in axes])
    return Numbers(stored=laid.transpose([axes.index(axis) for axis in range(len(axes))]), kind=kind)


CHUNK_ELEMENTS = 1 << 18  # 1 MiB of float32 a chunk: what caches hold


def chunks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows, in order, each of `CHUNK_ELEMENTS` values at most, or of one row."""
    step = max(1, CHUNK_ELEMENTS // max(1, columns))
    for low in range(0, rows, step):
        yield slice(low, min(low + step, rows))
