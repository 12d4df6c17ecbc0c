"""How many weights a file holds, whatever it stores of each."""

import math

from vkfuse.measure.tables import TableRead, constants_of, read_as_tables, table_reads
from vkfuse.pte.model import PteFile, once_a_file
from vkfuse.pte.vulkan import BACKEND_ID


@once_a_file
def weights(pte: PteFile) -> int | None:
    """Return the values of all tables and other constants; what belongs to a table, as its scales, is none by itself.

    None where another backend's delegate may hold some. What only external data has that was not given does not count.
    """
    if any(delegate.id != BACKEND_ID for method in pte.methods for delegate in method.delegates):
        return None
    reads = [read for read in read_as_tables(table_reads(pte)) if read.weight.data is not None]
    tables = {read.weight.shown: math.prod(shape_of(read)) for read in reads}
    parts = {constant.name for read in reads for constant in read.constants}
    others = {
        constant.name: math.prod(constant.dims)
        for method in pte.methods
        for constant in constants_of(pte, method.name)
        if constant.name not in parts and constant.data is not None
    }
    return sum(tables.values()) + sum(others.values())


def shape_of(read: TableRead) -> tuple[int, ...]:
    """Return the shape of a table's values; the last axis of a packed weight counts bytes of several."""
    dims, packed = read.weight.dims, read.reader.bits
    return (*dims[:-1], dims[-1] * (8 // packed if packed else 1)) if dims else ()
