"""A rung never takes more bytes than those that are tried after it."""

import itertools

import numpy as np
import pytest

from vkfuse.pte.enums import ScalarType
from vkfuse.tables.byte_rows import gathered_rows
from vkfuse.tables.decisions import Refusal
from vkfuse.tables.grid import Grid
from vkfuse.tables.planes import nibble_rows
from vkfuse.tables.q4 import lookup_pack
from vkfuse.tables.readers import Consumer, Readers

ROWS = 64
ALONE = Readers(consumers=frozenset({Consumer.GATHER}))


def _grid(columns, group, low, high, *, scales, kind, points):
    rng = np.random.default_rng(0)
    shape = (ROWS, columns // group)
    return Grid(
        values=rng.integers(low, high, (ROWS, columns), dtype=np.int8, endpoint=True),
        scales=(rng.random(shape) + 0.01).astype(scales),
        zero_points=rng.integers(low, high, shape, dtype=np.int8, endpoint=True) if points else None,
        group_size=group,
        quant_min=low,
        quant_max=high,
        dtype=kind,
    )


def _bytes(rows):
    return sum(array.nbytes for array in rows.parts.values())


@pytest.mark.parametrize("kind", [ScalarType.FLOAT, ScalarType.HALF, ScalarType.BFLOAT16])
def test_lookups(kind):
    """Fused, in 4-bit rows, in rows of bytes, in floats: what is taken first is smallest, in halves of small groups too."""
    refused = set()
    for columns, group, bits, scales, points in itertools.product(
        (32, 40, 48, 64, 96, 128),
        (1, 2, 3, 4, 8, 12, 16, 32),
        (2, 4, 5, 8),
        (np.float32, np.float16),
        (False, True),
    ):
        if columns % group:
            continue
        high = (1 << (bits - 1)) - 1
        grid = _grid(columns, group, -high - 1, high, scales=scales, kind=kind, points=points)
        made = (lookup_pack(grid, ALONE), nibble_rows(grid, ALONE), gathered_rows(grid))
        refused |= {rows.code for rows in made if isinstance(rows, Refusal)}
        sizes = [_bytes(rows) for rows in made if not isinstance(rows, Refusal)]
        sizes.append(grid.values.size * kind.bytes)
        assert sizes[0] == min(sizes), (columns, group, bits, scales, points, sizes)
    assert "groups-outgrow-floats" in refused
