"""The names that a file records of its tables, carried over to what they became."""

from collections.abc import Iterable
from dataclasses import replace

from vkfuse.measure.names import DIGITS, KEY, names_datum, table_names
from vkfuse.pages import digest
from vkfuse.patch.plan import PatchPlan
from vkfuse.pte.model import NamedData, PteFile
from vkfuse.pte.values import Extent


def renamed(file: PteFile, before: PteFile, plans: Iterable[PatchPlan]) -> PteFile:
    """Return an edited file with the names that `before` records, of the new packs too; without any where it has none."""
    known = table_names(before)
    named = {name: plan for plan in plans if (name := plan.table.name) in known.values()}
    packs = {
        digest(offer.stored[0].data.cast("B")).hex()[:DIGITS]: name
        for name, plan in named.items()
        for offer in plan.offers
    }
    if not packs:
        return file
    data = memoryview(names_datum({**known, **packs}))
    kept = (entry for entry in file.named if entry.key != KEY)
    entry = NamedData(key=KEY, segment_index=0, data=data, data_at=Extent(file.size, len(data)))
    return replace(file, named=(*kept, entry))
