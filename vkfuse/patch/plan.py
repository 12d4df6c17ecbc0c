"""Decide what becomes of each table of a file, from the file as it is."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from vkfuse.lint import faults, lint
from vkfuse.lint.findings import Finding
from vkfuse.lossy import Lossy
from vkfuse.measure.kernel_tables import KernelTable
from vkfuse.measure.stored import values_of
from vkfuse.measure.tables import FloatMatmul, TableRead, table_reads
from vkfuse.options import Progress, VulkanOptions
from vkfuse.pages import digest
from vkfuse.patch import matmuls
from vkfuse.patch.edit import Pack, Packs, edited
from vkfuse.patch.fit import misfit
from vkfuse.patch.sites import QuantizedTable, Site, Table, as_asked, file_tables
from vkfuse.pte.contents import Contents
from vkfuse.pte.enums import ScalarType
from vkfuse.pte.model import PteFile
from vkfuse.pte.vulkan import vulkan_graphs
from vkfuse.runtime.operators import linear
from vkfuse.runtime.operators.lookup import FUSED
from vkfuse.runtime.versions import Runtime
from vkfuse.tables.byte_rows import gathered_rows
from vkfuse.tables.decisions import Decision, Refusal, Rung, choose, not_in_runtime
from vkfuse.tables.floats import Array
from vkfuse.tables.found import NoGrid
from vkfuse.tables.grid import Grid
from vkfuse.tables.planes import rows_by_factors
from vkfuse.tables.proof import difference
from vkfuse.tables.proven import Proof
from vkfuse.tables.q4 import LOOKUP_COLUMNS, Q4Pack, linear_pack, linear_scales, lookup_pack, q4_pack
from vkfuse.tables.q8 import q8_pack
from vkfuse.tables.readers import Consumer, Readers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PatchOffer:
    """Another way to read a table: the `pack` that calls read, and the arrays `stored` for it."""

    rung: Rung
    operators: tuple[str, ...]
    pack: Pack
    stored: tuple[Array, ...]

    @property
    def how(self) -> tuple[str, ...]:
        """Codes of what the pack needed."""
        return self.pack.how

    def rebuild(self, low: int, high: int) -> Array:
        """Rows [low, high) of the table, [high - low, columns]."""
        return self.pack.rebuild(low, high)


_Made = PatchOffer | Refusal


def _offer(pack: Pack | Refusal, rung: Rung, *operators: str) -> _Made:
    """What is made of a pack, where there is one."""
    if isinstance(pack, Refusal):
        return pack
    return PatchOffer(rung=rung, operators=operators, pack=pack, stored=(*pack.parts.values(),))


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchPlan:
    """A table with its grid, None where it has none, and a decision for each of its sites."""

    table: Table
    grid: Grid | None
    decisions: tuple[Decision[Site, PatchOffer], ...]

    @property
    def offers(self) -> tuple[PatchOffer, ...]:
        """What the sites read now, each once."""
        made = (decision.proposal for decision in self.decisions)
        return tuple({id(offer): offer for offer in made if offer is not None}.values())


_NOTHING: Final = Lossy()


def plan(
    file: PteFile,
    runtime: Runtime,
    choices: VulkanOptions,
    progress: Progress = lambda _stage: None,
    lossy: Lossy = _NOTHING,
) -> tuple[PatchPlan, ...]:
    """Return a decision for each site of each table, proved on all of its rows, for a runtime.

    What `lossy` asks for is done to the tables first: VkfuseError where it means none.
    Weights of matmuls that are on no grid are no tables.
    """
    planner = _Planner(file, runtime, choices)
    offered = [planner.offered(table, progress) for table in as_asked(file_tables(file), lossy)]
    tables = [offers for offers in offered if offers.grid or Consumer.GATHER in offers.table.consumers]
    sound = planner.sound(tables)
    return tuple(planner.plan(offers, sound=sound) for offers in tables)


def packs_of(plans: Iterable[PatchPlan]) -> Packs:
    """Return what each site reads that does not stay as it is."""
    return {
        decision.site.read.where: offer.pack
        for plan in plans
        for decision in plan.decisions
        if (offer := decision.proposal) is not None
    }


def _key(pack: Q4Pack) -> str:
    """The name that the bytes of a pack stand under."""
    return digest(pack.packed.data.cast("B")).hex()


class _Planner:
    """Decides for one file and runtime."""

    def __init__(self, file: PteFile, runtime: Runtime, choices: VulkanOptions) -> None:
        self._file, self._runtime, self._choices = file, runtime, choices
        self._known = _placed(lint(file, runtime.version))
        self._reads = tuple(table_reads(file))

    def offered(self, table: Table, progress: Progress) -> "_Offers":
        """Find the grid of a table."""
        progress(f"reading {table.name} [{table.shape[0]}, {table.shape[1]}]")
        return _Offers(self, table.grid(), table)

    def sound(self, tables: Iterable["_Offers"]) -> bool:
        """Whether all that fits brings no fault together; then no offer need be tried by itself."""
        packs = {
            site.read.where: offer.pack
            for offers in tables
            for site in offers.table.sites
            if (offer := self._fitting(offers, site)) is not None
        }
        return new_fault(self._file, packs, self._runtime, self._known) is None

    def _fitting(self, offers: "_Offers", site: Site) -> PatchOffer | None:
        """The first offer to a site that fits it."""
        against = self._against(site, sound=True)
        made = (offer for offer in offers.of(site) if isinstance(offer, PatchOffer))
        return next((offer for offer in made if against(offer) is None), None)

    def plan(self, offers: "_Offers", *, sound: bool) -> PatchPlan:
        """Decide for the sites of a table."""
        table = offers.table
        proofs: dict[int, Proof] = {}

        def prove(offer: PatchOffer) -> Proof:
            if id(offer) not in proofs:
                proofs[id(offer)] = difference(table.numbers.rows, offer.rebuild, *table.shape).proof
            return proofs[id(offer)]

        def decided(site: Site) -> Decision[Site, PatchOffer]:
            return choose(site, offers.of(site), self._against(site, sound=sound), prove)

        made = PatchPlan(table=table, grid=offers.grid, decisions=tuple(map(decided, table.sites)))
        return self._unless_larger(made)

    def _unless_larger(self, made: PatchPlan) -> PatchPlan:
        """The plan, or none of it where all of its packs would be added to floats that something else reads, unasked."""
        packs = packs_of([made])
        if not packs or isinstance(made.table.numbers, QuantizedTable):
            return made
        more = Contents(edited(self._file, packs)).size - Contents(self._file).size
        if more < sum(stored.nbytes for offer in made.offers for stored in offer.stored):
            return made
        refusal = Refusal(
            code="floats-read-elsewhere", detail=f"they stay, and the file would be {more} bytes larger"
        )
        left = (replace(d, proposal=None, refusals=(refusal, *d.refusals)) for d in made.decisions)
        return replace(made, decisions=tuple(left))

    def lookup(self, grid: Grid, table: Table) -> _Made:
        """The fused lookup of a table, in the pack of a matmul that is tied to it where there is one."""
        tied = lookup_pack(grid, self._readers(table.consumers | {Consumer.MATMUL}))
        if isinstance(tied, Q4Pack) and _key(tied) in self._file.named_data:
            return _offer(tied, Rung.Q4, FUSED)
        return _offer(lookup_pack(grid, self._readers(table.consumers)), Rung.Q4, FUSED)

    def shared(self, grid: Grid, offers: "_Offers") -> _Made:
        """The fused lookup of a table by the scales that a matmul stores, or why not by these."""
        readers = self._readers(offers.table.consumers | {Consumer.MATMUL})
        pack = q4_pack(grid, readers, columns_multiple=LOOKUP_COLUMNS)
        if isinstance(pack, Refusal):
            return replace(pack, beside=True)
        factors = next(self._factors(pack, offers), None)
        if factors is None:
            return Refusal(code="scales-apart", detail="no matmul stores scales of the table", beside=True)
        return _offer(rows_by_factors(pack, factors, readers), Rung.Q4, FUSED)

    def _factors(self, pack: Q4Pack, offers: "_Offers") -> Iterator[Array]:
        """Yield the scales [groups, rows] that matmuls of a pack store, those of the file and those to be written."""
        key = _key(pack)
        for read in self._reads:
            if read.weight.name == key and read.reader.turned and read.scales is not None:
                scales = values_of(read.scales)
                yield from () if scales is None else (scales.stored,)
        fitting = (self._fitting(offers, s) for s in offers.table.sites if s.consumer is Consumer.MATMUL)
        yield from (offer.stored[1] for offer in fitting if offer and isinstance(offer.pack, Q4Pack))

    def matmul(self, grid: Grid, table: Table, kind: ScalarType) -> _Made:
        """The fused matmul by a table, in the pack of a lookup that is tied to it where there is one.

        Its scales [groups, rows] are stored in the type of the activations.
        """
        pack = linear_pack(grid, self._readers(table.consumers), kind)
        if isinstance(pack, Refusal):
            return pack
        scales = linear_scales(pack, kind)
        return PatchOffer(
            rung=Rung.Q4,
            operators=(linear.FUSED,),
            pack=pack.by_scales(scales),
            stored=(pack.packed, scales),
        )

    def activations(self, site: Site) -> ScalarType | None:
        """The type of what a table is multiplied with, None for one that no fused matmul takes, or for a lookup."""
        if not isinstance(site.read, FloatMatmul):
            return None
        return matmuls.activations(vulkan_graphs(self._file)[site.read.where.around], site.read)

    def _readers(self, consumers: frozenset[Consumer]) -> Readers:
        choices = self._choices
        return Readers(consumers=consumers, layout=choices.lookup_layout, scales=choices.scales)

    def _against(self, site: Site, *, sound: bool) -> "_Against":
        return _Against(self._file, self._runtime, site.read, self._known, sound)


class _Offers:
    """What a table offers to its sites, best first: each made once for all that are alike."""

    def __init__(self, planner: _Planner, found: Grid | NoGrid, table: Table) -> None:
        self._planner, self._found, self.table = planner, found, table
        self._known: dict[tuple[str, ScalarType | None], _Made] = {}

    @property
    def grid(self) -> Grid | None:
        """The grid of the table."""
        return self._found if isinstance(self._found, Grid) else None

    def of(self, site: Site) -> Iterator[_Made]:
        """Yield the offers to one site."""
        if isinstance(self._found, NoGrid):
            yield self._found.refusal()
        elif site.consumer is Consumer.MATMUL:
            yield from self._to_matmul(self._found, self._planner.activations(site))
        else:
            yield from self._to_lookup(self._found)

    def _to_lookup(self, grid: Grid) -> Iterator[_Made]:
        yield self._once("shared", None, lambda: self._planner.shared(grid, self))
        yield self._once("lookup", None, lambda: self._planner.lookup(grid, self.table))
        if not isinstance(self.table.numbers, KernelTable):  # which is as small as its bytes
            yield self._once("gather", None, lambda: _offer(gathered_rows(grid), Rung.GATHERED))

    def _to_matmul(self, grid: Grid, kind: ScalarType | None) -> Iterator[_Made]:
        if kind is None:
            yield Refusal(
                code="activation-dtype", detail="activations are of a type that no fused matmul takes"
            )
            return
        yield self._once("matmul", kind, lambda: self._planner.matmul(grid, self.table, kind))
        yield self._once("bytes", kind, lambda: _offer(q8_pack(grid, kind), Rung.Q8, linear.FUSED_BYTES))

    def _once(self, name: str, kind: ScalarType | None, make: Callable[[], _Made]) -> _Made:
        if (name, kind) not in self._known:
            self._known[name, kind] = make()
        return self._known[name, kind]


@dataclass(frozen=True, slots=True)
class _Against:
    """What speaks against an offer at one place: the runtime, the call as it is, or faults that it would bring."""

    file: PteFile
    runtime: Runtime
    read: TableRead | FloatMatmul
    known: Counter[str]
    sound: bool  # whether it is known to bring none

    def __call__(self, offer: PatchOffer) -> Refusal | None:
        refused = not_in_runtime(offer, self.runtime) or misfit(self.file, self.read, offer.pack)
        if refused is not None or self.sound:
            return refused
        return new_fault(self.file, {self.read.where: offer.pack}, self.runtime, self.known)


def new_fault(file: PteFile, packs: Packs, runtime: Runtime, known: Counter[str]) -> Refusal | None:
    """Return the first fault that the edited file would have beyond those that are known of the file."""
    findings = lint(edited(file, packs), runtime.version) if packs else ()
    after = _placed(findings)
    for finding in faults(findings):
        if after[_said(finding)] > known[_said(finding)]:
            return Refusal(code=finding.code, detail=f"{finding.name}: {finding.hint}", hint=finding.hint)
    return None


def _placed(findings: Iterable[Finding]) -> Counter[str]:
    """Count faults by what is wrong, wherever it is: edited delegates may have other numbers."""
    return Counter(map(_said, faults(findings)))


def _said(finding: Finding) -> str:
    return f"{finding.code} {finding.name} {finding.hint}"
