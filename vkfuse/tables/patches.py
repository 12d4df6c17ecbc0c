"""Weights of convolutions as matrices: the columns of a row are those of a patch of the image."""

from math import prod

import numpy as np

from vkfuse.tables.floats import Array


def as_patches(rows: Array, kernel: tuple[int, ...]) -> Array:
    """[n, inputs * pixels] in the order of a weight as [n, pixels * inputs], the inputs of a pixel beside each other."""
    return _swapped(rows, rows.shape[1] // prod(kernel), prod(kernel))


def from_patches(rows: Array, kernel: tuple[int, ...]) -> Array:
    """The inverse of `as_patches`."""
    return _swapped(rows, prod(kernel), rows.shape[1] // prod(kernel))


def _swapped(rows: Array, outer: int, inner: int) -> Array:
    turned = rows.reshape(len(rows), outer, inner).swapaxes(1, 2)
    return np.ascontiguousarray(turned.reshape(len(rows), outer * inner))
