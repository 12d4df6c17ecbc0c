"""Discrete Fourier transforms of pairs of real numbers, as products with matrices of cosines and sines.

Source: the definition; its conventions are torch's (aten/native/SpectralOps.cpp).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand, operands

aten = torch.ops.aten

_OF_REAL: Final = aten._fft_r2c.default  # noqa: SLF001 - the operator's name
_OF_COMPLEX: Final = aten._fft_c2c.default  # noqa: SLF001
_TO_REAL: Final = aten._fft_c2r.default  # noqa: SLF001
TRANSFORMS: Final = (_OF_REAL, _OF_COMPLEX, _TO_REAL)
_LONGEST: Final = 1024  # a pair of matrices of 8 MiB
_SCALES: Final[Sequence[Callable[[int], float]]] = (
    lambda _: 1.0,
    lambda n: 1 / math.sqrt(n),
    lambda n: 1 / n,
)  # fft_norm_mode
_Parts: TypeAlias = tuple[torch.Tensor, torch.Tensor | None]


def transformed(editor: GraphEditor, node: fx.Node, parts: _Parts) -> Any:
    """Transform real and imaginary parts, None for zeros, along each dimension; None where one is too long or dynamic.

    A pair, or the real part alone of what has no other.
    """
    value, given = node.meta["val"], operands(node)
    real = node.target == _TO_REAL
    whole = value if real else operand(node, "x").meta["val"]
    dims = [dim % value.ndim for dim in given["dim"]]
    sizes = [whole.shape[dim] for dim in dims]
    if not all(isinstance(size, int) and size <= _LONGEST for size in sizes):
        return None
    scale = _SCALES[given["normalization"]](math.prod(sizes))
    for dim, size in zip(dims, sizes, strict=True):
        last = dim == dims[-1]
        waves = _waves(size, scale if last else 1.0)
        if real and last:
            return _along(editor, parts, dim, _to_real(waves), alone=True)[0]
        if last and given.get("onesided"):
            waves = waves[:, : size // 2 + 1]
        forward = given.get("forward", not real)
        parts = _along(editor, parts, dim, waves.conj() if forward else waves)
    return parts


def _waves(size: int, scale: float) -> torch.Tensor:
    """complex128 [size, size]: the roots of one by place and frequency."""
    turns = torch.outer(torch.arange(size), torch.arange(size)) % size
    return torch.polar(torch.tensor(scale, dtype=torch.float64), turns.double() * (2 * math.pi / size))


def _to_real(waves: torch.Tensor) -> torch.Tensor:
    """Of half of a spectrum: each frequency stands for its mirror image too, but the first and a middle one."""
    size = waves.shape[0]
    half = waves[: size // 2 + 1].clone()
    half[1 : (size + 1) // 2] *= 2
    return half


def _along(
    editor: GraphEditor, parts: _Parts, dim: int, waves: torch.Tensor, *, alone: bool = False
) -> _Parts:
    """The product of `parts` with `waves` [places, frequencies] along `dim`, or its real part `alone`."""
    real, imaginary = parts
    cosines, sines = (
        editor.stored(of.to(real.dtype).contiguous(), "waves") for of in (waves.real, waves.imag)
    )
    by_cosines, by_sines = multiplied_along(real, dim, cosines), multiplied_along(real, dim, sines)
    if imaginary is None:
        return by_cosines, by_sines
    first = by_cosines - multiplied_along(imaginary, dim, sines)
    return first, None if alone else by_sines + multiplied_along(imaginary, dim, cosines)


def multiplied_along(x: torch.Tensor, dim: int, matrix: torch.Tensor) -> torch.Tensor:
    """The product of `x` along `dim` with `matrix` [places, new places]."""
    if dim == x.ndim - 1:
        return x @ matrix
    return (x.transpose(dim, -1) @ matrix).transpose(dim, -1)
