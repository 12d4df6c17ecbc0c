"""Law 1 once more, of the written bytes: what the file stores of each planned table against the program's table.

The plan says which constants it wrote for which site; here they are looked for in the file, as they are or in half
precision, and what is found is rebuilt as the runtime reads it.
"""

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

import torch
from torch.export import ExportedProgram

from vkfuse.measure.audit import TableCheck, Wanted, audit, check, compared, resembling
from vkfuse.measure.stored import Stored, gathered, matrices, stored_tables
from vkfuse.measure.tables import ConstantTensor, constants_of, table_reads
from vkfuse.pages import digest
from vkfuse.program.content import content
from vkfuse.pte.model import PteFile
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.decisions import Decision, TablePlan
from vkfuse.tables.decisions import Rung
from vkfuse.tables.proof import Difference
from vkfuse.tables.proven import Proof, weakest
from vkfuse.verify.wanted import wanted_of, wanted_tables

_CHUNK: Final = 1 << 22  # values that are converted at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Proved:
    """What the file holds of a method's tables: a check of each read, and proofs of sites, None of one without bytes."""

    checks: tuple[TableCheck, ...]
    proofs: Mapping[Hashable, tuple[Proof | None, ...]]


def prove_method(pte: PteFile, method: str, exported: ExportedProgram, plans: Iterable[TablePlan]) -> Proved:
    """Return what a written file holds of the tables of a method; `exported` is the program that `plans` are of."""
    return _Search(pte, method, exported).proved(plans)


def proofs_of(proved: Iterable[Proved]) -> dict[Hashable, Proof | None]:
    """Return the weakest proof of each table over all methods: none, then that with the largest error."""
    found: dict[Hashable, list[Proof | None]] = {}
    for method in proved:
        for identity, proofs in method.proofs.items():
            found.setdefault(identity, []).extend(proofs)
    return {identity: weakest(proofs) for identity, proofs in found.items()}


class _Search:
    """The tables of one method of the file, found by their content."""

    def __init__(self, pte: PteFile, method: str, exported: ExportedProgram) -> None:
        self._exported, self._constants = exported, Constants(exported)
        self._all = [*constants_of(pte, method)]
        self._stored = [*stored_tables(read for read in table_reads(pte) if read.where.method == method)]
        self._digests: dict[str, str] = {}
        self._checks: dict[str, TableCheck] = {}
        self._read: set[int] = set()
        self._known: dict[Hashable, Difference] = {}

    def proved(self, plans: Iterable[TablePlan]) -> Proved:
        """Compare what the plan wrote, then what else the file reads with what else the program has."""
        proofs: dict[Hashable, tuple[Proof | None, ...]] = {}
        missing: set[str] = set()
        named: set[str] = set()
        for plan in plans:
            made = tuple(self._site(plan.table.name, decision) for decision in plan.decisions)
            proofs[plan.table.identity] = (*proofs.get(plan.table.identity, ()), *made)
            named.add(plan.table.name)
            if None in made:
                missing.add(plan.table.name)
        return Proved(checks=(*self._checks.values(), *self._others(named - missing)), proofs=proofs)

    def _others(self, done: AbstractSet[str]) -> Iterator[TableCheck]:
        """Yield checks of what the plan did not write, against tables but those that are `done`."""
        left = [table for table in self._stored if id(table) not in self._read]
        if left:
            yield from audit(left, (w for w in wanted_tables(self._exported) if w.name not in done))

    def _site(self, name: str, decision: Decision) -> Proof | None:
        """Compare what the file has for one site, None where it has nothing."""
        fused = decision.proposal is not None
        other = wanted_of(name, decision.site, self._constants, patches=fused)
        results = [
            (table, self._compared(table, other, decision)) for table in self._candidates(other, decision)
        ]
        if decision.proposal is None:  # of constants that are only alike, those that are nearest
            least = min((result.differing for _, result in results), default=0)
            results = [(table, result) for table, result in results if result.differing == least]
        for table, result in results:
            self._checks[table.where] = check(table, other, result)
        return weakest(result.proof for _, result in results)

    def _compared(self, table: Stored, other: Wanted, decision: Decision) -> Difference:
        """Compare a table of the file with the program's once for all sites that are alike."""
        key = (table.where, other.consumer, decision.folded, *map(content, decision.constants))
        if key not in self._known:
            self._known[key] = compared(table, other)
        return self._known[key]

    def _candidates(self, other: Wanted, decision: Decision) -> list[Stored]:
        """Return what the file has for one site."""
        if decision.proposal is None:
            return [*self._folded(other)]
        weight, *rest = decision.constants
        found = [table for table in self._like(weight) if table.consumer == other.consumer]
        stored = decision.proposal.stored
        if decision.rung is Rung.GATHERED or "ones" in stored:
            parts = [of for what, of in stored.items() if what in {"scales", "zero_points"}]
            return [*self._gathered(found, parts)]
        self._read.update(map(id, found))
        if decision.rung is Rung.FOLDED:
            return found
        scales = _digests(rest[0])
        return [table for table in found if table.scales and self._digest(table.scales) in scales] or found

    def _like(self, tensor: torch.Tensor) -> list[Stored]:
        """Return the tables of the file whose weight is `tensor`, as it is or in half precision."""
        wanted = _digests(tensor)
        return [table for table in self._stored if self._digest(table.weight) in wanted]

    def _gathered(self, values: Iterable[Stored], rest: Sequence[torch.Tensor]) -> Iterator[Stored]:
        """Yield the tables whose values, scales and zero points are gathered apart."""
        parts = [self._like(tensor) for tensor in rest]
        for table in (of for of in values if of.raw and all(parts)):
            scales, *points = (found[0] for found in parts)
            rebuilt = gathered(table, scales, points[0] if points else None)
            if rebuilt is not None:
                self._read.update(map(id, (table, *(of for found in parts for of in found))))
                yield rebuilt

    def _folded(self, other: Wanted) -> Iterator[Stored]:
        """Yield the float constants that are like what a site reads."""
        if not other.rows * other.columns:
            return
        tried = (view for constant in self._all for view in matrices(constant, other.rows, other.columns))
        for table in resembling(tried, other):
            self._read.update(id(read) for read in self._stored if read.weight.name == table.weight.name)
            yield table

    def _digest(self, constant: ConstantTensor) -> str:
        """SHA-256 of a constant's bytes; they are hashed once."""
        if constant.name not in self._digests:
            self._digests[constant.name] = digest(constant.data or memoryview(b"")).hex()
        return self._digests[constant.name]


def _digests(tensor: torch.Tensor) -> frozenset[str]:
    """SHA-256 of a tensor's bytes, as they are and as half precision stores them; converted in chunks."""
    kept = content(tensor)[0]
    if tensor.dtype is not torch.float32:
        return frozenset({kept})
    halves, flat = hashlib.sha256(), tensor.detach().contiguous().reshape(-1)
    for low in range(0, flat.numel(), _CHUNK):
        halves.update(flat[low : low + _CHUNK].half().view(torch.uint8).numpy().data)
    return frozenset({kept, halves.hexdigest()})
