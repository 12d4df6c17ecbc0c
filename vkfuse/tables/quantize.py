"""Four or eight bits for a table of floats: choices of scales, and what each loses.

`signed` is vkfuse's own: the value of largest magnitude of a group becomes the lowest integer, the scale is sought among
nineteen divisors about it and refit by least squares. `torchao` is ``MappingType.SYMMETRIC`` of torchao 0.18
(quant_primitives.py, `choose_qparams_affine`), `hqq` its ``HQQ_SCALE_ONLY``, `q4_0` llama.cpp's rule of that name.
"""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np

from vkfuse.lossy import Setting, parse_setting
from vkfuse.pte.enums import ScalarType
from vkfuse.tables.floats import Array, halves
from vkfuse.tables.grid import Grid
from vkfuse.tables.proven import Loss, WhatIf

HALF, FLOAT = 2, 4  # bytes of a scale
_SETTINGS: Final = ("int4:32", "int4:64", "int4:128", "int8")  # of what-if
CHUNK: Final = 1 << 21  # values that are looked at together
_DIVISORS: Final = np.linspace(-0.9, 0.9, 19, dtype=np.float32)
_ROUNDS: Final = 20  # of hqq
_EPS: Final = np.float32(np.finfo(np.float32).eps)
_NOTHING: Final = np.float32(1e-37)  # its inverse is still a float32
_LEAST_HALF: Final = np.float32(2.0**-14)  # normal ones: a GPU may take the others for zero


Rule = Callable[
    [Array, int], Array
]  # float32 [groups, columns], the lowest integer -> float32 scales [groups]


def _farthest(rows: Array) -> Array:
    """The value of largest magnitude of each group, with its sign."""
    at: Array = np.abs(rows).argmax(axis=1)
    farthest: Array = np.take_along_axis(rows, at[:, None], axis=1)[:, 0]
    return farthest


def _codes(rows: Array, scales: Array, lowest: int) -> Array:
    """The integers nearest to rows / scales, by the inverse as torchao has them; zeros where a scale is next to nothing."""
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=np.abs(scales) > _NOTHING)
    codes = rows * inverse[:, None]
    np.rint(codes, out=codes)
    return np.clip(codes, lowest, -lowest - 1, out=codes)


def _fit(rows: Array, codes: Array) -> tuple[Array, Array]:
    """The scales that fit codes best, and how much of the squares each then explains."""
    along, squares = np.einsum("gc,gc->g", rows, codes), np.einsum("gc,gc->g", codes, codes)
    scales = np.divide(along, squares, out=np.zeros_like(along), where=squares > 0)
    return scales, scales * along


def _signed(rows: Array, lowest: int) -> Array:
    farthest, best, explained = _farthest(rows), np.zeros(len(rows), np.float32), np.full(len(rows), -1.0)
    for step in _DIVISORS:
        scales, share = _fit(rows, _codes(rows, farthest / (lowest - step), lowest))
        better = share > explained
        best, explained = np.where(better, scales, best), np.where(better, share, explained)
    return best


def _torchao(rows: Array, lowest: int) -> Array:
    half_range = np.float32((-2 * lowest - 1) / 2)
    most = np.maximum(np.maximum(-rows.min(axis=1), rows.max(axis=1)), 0)
    scales: Array = np.maximum(most / half_range, _EPS)
    return scales


def _hqq(rows: Array, lowest: int) -> Array:
    scales: Array = np.maximum(np.abs(rows).max(axis=1) / np.float32(-lowest), _EPS)
    for _ in range(_ROUNDS):
        fitted, _ = _fit(rows, _codes(rows, scales, lowest))
        scales = np.maximum(np.abs(np.where(fitted == 0, scales, fitted)), _EPS)
    return scales


def _q4_0(rows: Array, lowest: int) -> Array:
    scales: Array = _farthest(rows) / np.float32(lowest)
    return scales


_RULES: Final[Mapping[str, Rule]] = {"signed": _signed, "torchao": _torchao, "hqq": _hqq, "q4_0": _q4_0}


def quantized(table: Array, setting: Setting, dtype: ScalarType) -> Grid | None:
    """The grid of a float table [rows, columns], None where groups do not divide its rows or a value is not finite.

    Scales are halves, but those of `torchao`, which stay as it makes them.
    """
    rows, columns = table.shape
    group = setting.group_of(columns)
    if group is None or not table.size or not np.isfinite(table).all():
        return None
    values = np.empty((rows, columns), np.int8)
    scales = np.empty((rows, columns // group), np.float32)
    for low in range(0, rows, step := max(1, CHUNK // columns)):
        part = table[low : low + step].astype(np.float32).reshape(-1, group)
        found = _RULES[setting.rule](part, setting.lowest)
        found = found if setting.rule == "torchao" else in_halves(found)
        scales[low : low + step] = found.reshape(-1, columns // group)
        values[low : low + step] = _codes(part, found, setting.lowest).reshape(-1, columns)
    return Grid(
        values=values,
        scales=scales,
        zero_points=None,
        group_size=group,
        quant_min=setting.lowest,
        quant_max=-setting.lowest - 1,
        dtype=dtype,
    )


def in_halves(scales: Array) -> Array:
    """Scales rounded to half precision, as float32; those below its normal numbers become the least of these or zero."""
    near = np.clip(scales, -65504, 65504).astype(np.float16).astype(np.float32)
    small = np.where(np.abs(scales) < _LEAST_HALF / 2, np.float32(0), np.copysign(_LEAST_HALF, scales))
    rounded: Array = np.where(np.abs(near) < _LEAST_HALF, small, near).astype(np.float32)
    return rounded


def loss(before: Array, after: Array) -> Loss:
    """What `after` lost of `before`, arrays of one shape, in blocks of their first axis."""
    signal = noise = product = power = largest = 0.0
    width = max(1, before.size // max(1, len(before)))
    for low in range(0, len(before), step := max(1, CHUNK // width)):
        left, right = (part[low : low + step].astype(np.float64).ravel() for part in (before, after))
        apart = left - right
        signal, noise = signal + float(left @ left), noise + float(apart @ apart)
        product, power = product + float(left @ right), power + float(right @ right)
        largest = max(largest, float(np.abs(apart).max(initial=0.0)))
    sqnr = np.inf if noise == 0 else (10 * np.log10(signal / noise) if signal else -np.inf)
    norm = np.sqrt(signal * power)
    return Loss(sqnr_db=float(sqnr), cosine=float(product / norm) if norm else 1.0, max_abs_error=largest)


def what_if(name: str, floats: Array, dtype: ScalarType, *, looked_up: bool) -> Iterator[WhatIf]:
    """Yield a table of floats at each setting whose groups divide its columns; matmuls keep float32 scales."""
    for setting in map(parse_setting, _SETTINGS):
        grid = quantized(floats, setting, dtype)
        if grid is not None:
            scale = HALF if looked_up and halves(grid.scales) is not None else FLOAT
            yield WhatIf(
                name=name,
                setting=str(setting),
                before=floats.size * dtype.bytes,
                after=grid.values.size * setting.bits // 8 + grid.scales.size * scale,
                loss=loss(floats, grid.rebuild(0, grid.rows)),
                option=f"--quantize {shlex.quote(f'{re.escape(name)}={setting}')}",
            )
