"""Exact edits around what the runtime fails on or gets wrong in the delegates of a file, in the order of `MENDS`.

What is left is for whoever asked: the file would not load, or be wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

from vkfuse.lint import blame
from vkfuse.measure.tables import table_reads
from vkfuse.patch.edit import with_named
from vkfuse.patch.faulty import Fault, Faulty, Mend, Mending
from vkfuse.patch.folding import fold_constants
from vkfuse.patch.mend_calls import (
    complete_layer_norms,
    count_from_the_front,
    give_strides,
    multiply_by_bytes,
    multiply_matrices,
    negate_bits,
    pack_by_width,
    quantize_matrices,
    read_rows_in_buffers,
    store_floats,
)
from vkfuse.patch.methods import MethodEdit
from vkfuse.pte.model import PteFile
from vkfuse.pte.place import Place
from vkfuse.pte.vulkan import vulkan_graphs
from vkfuse.runtime.operators import record_of
from vkfuse.runtime.versions import Runtime

# Constants first: what they leave behind may be mended further.
MENDS: Final[tuple[Mending, ...]] = (
    fold_constants,
    store_floats,
    read_rows_in_buffers,
    pack_by_width,
    multiply_by_bytes,
    multiply_matrices,
    quantize_matrices,
    negate_bits,
    complete_layer_norms,
    give_strides,
    count_from_the_front,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """A file, and what was mended to get it."""

    file: PteFile
    mends: tuple[Mend, ...]


def mended(file: PteFile, runtime: Runtime) -> Mended:
    """Mend what can be; a file without faults is returned as it is. FormatError where a blob is malformed."""
    done: tuple[Mend, ...] = ()
    for mending in MENDS:
        faults = _faults(file, runtime)
        if not faults:
            break
        file, made = _mended_by(mending, file, faults)
        done += made
    return Mended(file=file, mends=done)


def _faults(file: PteFile, runtime: Runtime) -> dict[Place, tuple[Fault, ...]]:
    """The faulty calls of each delegate."""
    graphs, found = vulkan_graphs(file), [*blame(file, runtime.version)]
    return {
        place: tuple(
            Fault(
                position=at,
                call=graphs[place].chain[at],
                codes=frozenset(of.objection.code for of in found if (of.where, of.position) == (place, at)),
            )
            for at in dict.fromkeys(of.position for of in found if of.where == place)
            if len(graphs[place].chain[at].args)
            > len(record_of(graphs[place].chain[at].name).arguments.split())
        )
        for place in dict.fromkeys(of.where for of in found)
    }


def _mended_by(
    mending: Mending, file: PteFile, faults: Mapping[Place, tuple[Fault, ...]]
) -> tuple[PteFile, tuple[Mend, ...]]:
    """The file with one kind of mend in all of its methods."""
    graphs, beyond = vulkan_graphs(file), count(file.size)
    reads = {read.where: read for read in table_reads(file)}
    methods, done = [], []
    named: dict[str, memoryview] = {}
    for method in file.methods:
        edit = MethodEdit(method, graphs, beyond)
        faulty = (
            Faulty(file=file, method=edit, place=place, faults=found, reads=reads)
            for place, found in faults.items()
            if place.method == method.name
        )
        made = [mend for each in faulty for mend in mending(each)]
        methods.append(edit.finished() if made else method)
        named |= edit.named
        done += made
    changed = with_named(replace(file, methods=tuple(methods)), graphs, named) if done else file
    return changed, tuple(done)
