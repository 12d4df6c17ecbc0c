"""Tables row by row in pieces, so that no step of a proof or a pack takes memory of a whole table's size."""

from collections.abc import Iterator

CHUNK_ELEMENTS = 1 << 18  # 1 MiB of float32 a chunk: what caches hold


def chunks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows, in order, each of `CHUNK_ELEMENTS` values at most, or of one row."""
    step = max(1, CHUNK_ELEMENTS // max(1, columns))
    for low in range(0, rows, step):
        yield slice(low, min(low + step, rows))
