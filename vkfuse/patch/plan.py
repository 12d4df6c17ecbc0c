"""Decide what becomes of each table of a file, from the file as it is."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from vkfuse.lint import faults, lint
from vkfuse.lint.findings import Finding
from vkfuse.measure.tables import FloatMatmul, TableRead
from vkfuse.options import Progress, VulkanOptions
from vkfuse.pages import digest
from vkfuse.patch import matmuls
from vkfuse.patch.edit import Packs, edited
from vkfuse.patch.fit import misfit
from vkfuse.patch.sites import Site, Table, file_tables
from vkfuse.pte.enums import ScalarType
from vkfuse.pte.model import PteFile
from vkfuse.pte.vulkan import vulkan_graphs
from vkfuse.runtime.operators.lookup import FUSED
from vkfuse.runtime.versions import Runtime
from vkfuse.tables.decisions import Choice, Refusal, Rung, choose, not_in_runtime
from vkfuse.tables.floats import Array
from vkfuse.tables.found import NoGrid
from vkfuse.tables.grid import Grid
from vkfuse.tables.proof import Proof, difference
from vkfuse.tables.q4 import Q4Pack, any_lookup_pack, linear_pack, linear_scales
from vkfuse.tables.readers import Consumer, Readers


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedLookup:
    """The fused lookup of a table."""

    pack: Q4Pack
    rung: Rung = Rung.Q4
    operators: tuple[str, ...] = (FUSED,)

    @property
    def how(self) -> tuple[str, ...]:
        """Codes of what it needed."""
        return self.pack.how

    def rebuild(self, low: int, high: int) -> Array:
        """Rows [low, high) of the table, [high - low, columns]."""
        return self.pack.rebuild(low, high)

    @property
    def stored(self) -> tuple[Array, Array]:
        """The weight and the scales that are stored."""
        return self.pack.packed, self.pack.scales


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedMatmul(FusedLookup):
    """The fused matmul by a table, of activations of a type, in which its scales are stored."""

    activations: ScalarType
    operators: tuple[str, ...] = (matmuls.FUSED,)

    def rebuild(self, low: int, high: int) -> Array:
        """Rows [low, high) of the table by the scales as they are stored."""
        return self.pack.by_scales(self.stored[1]).rebuild(low, high)

    @property
    def stored(self) -> tuple[Array, Array]:
        """The weight, and the scales [groups, rows]."""
        return self.pack.packed, linear_scales(self.pack, self.activations)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchDecision:
    """What is done with a site."""

    site: Site
    choice: Choice[FusedLookup]

    @property
    def stored(self) -> tuple[Array, ...]:
        """What is stored for it."""
        return () if self.choice.proposal is None else self.choice.proposal.stored

    @property
    def pack(self) -> Q4Pack | None:
        """The pack that it will read, None where it stays as it is."""
        return None if self.choice.proposal is None else self.choice.proposal.pack


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchPlan:
    """A table with its grid, None where it has none, and a decision for each of its sites."""

    table: Table
    grid: Grid | None
    decisions: tuple[PatchDecision, ...]


def plan(
    file: PteFile,
    runtime: Runtime,
    choices: VulkanOptions,
    progress: Progress = lambda _stage: None,
) -> tuple[PatchPlan, ...]:
    """Return a decision for each site of each table, proved on all of its rows, for a runtime.

    Weights of matmuls that are on no grid are no tables.
    """
    planner = _Planner(file, runtime, choices)
    offered = [planner.offered(table, progress) for table in file_tables(file)]
    tables = [offers for offers in offered if offers.grid or Consumer.GATHER in offers.table.consumers]
    sound = planner.sound(tables)
    return tuple(planner.plan(offers, sound=sound) for offers in tables)


def packs_of(plans: Iterable[PatchPlan]) -> Packs:
    """Return what each site reads that does not stay as it is."""
    return {
        decision.site.read.where: decision.pack
        for plan in plans
        for decision in plan.decisions
        if decision.pack is not None
    }


def _key(pack: Q4Pack) -> str:
    """The name that the bytes of a pack stand under."""
    return digest(pack.packed.data.cast("B")).hex()


class _Planner:
    """Decides for one file and runtime."""

    def __init__(self, file: PteFile, runtime: Runtime, choices: VulkanOptions) -> None:
        self._file, self._runtime, self._choices = file, runtime, choices
        self._known = _placed(lint(file, runtime.version))

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
            if isinstance(offer := offers.of(site), FusedLookup)
            and self._against(site, sound=True)(offer) is None
        }
        return new_fault(self._file, packs, self._runtime, self._known) is None

    def plan(self, offers: "_Offers", *, sound: bool) -> PatchPlan:
        """Decide for the sites of a table."""
        table = offers.table
        proofs: dict[int, Proof] = {}

        def prove(offer: FusedLookup) -> Proof:
            if id(offer) not in proofs:
                proofs[id(offer)] = difference(table.numbers.rows, offer.rebuild, *table.shape).proof
            return proofs[id(offer)]

        def decided(site: Site) -> PatchDecision:
            against = self._against(site, sound=sound)
            return PatchDecision(site=site, choice=choose([offers.of(site)], against, prove))

        return PatchPlan(table=table, grid=offers.grid, decisions=tuple(map(decided, table.sites)))

    def lookup(self, grid: Grid, table: Table) -> FusedLookup | Refusal:
        """The fused lookup of a table, in the pack of a matmul that is tied to it where there is one."""
        pack = self._pack(grid, table.consumers | {Consumer.MATMUL})
        if (
            isinstance(pack, Refusal) or _key(pack) not in self._file.named_data
        ):  # no matmul's table that is tied to it
            pack = self._pack(grid, table.consumers)
        return pack if isinstance(pack, Refusal) else FusedLookup(pack=pack)

    def matmul(self, grid: Grid, table: Table, site: Site) -> FusedMatmul | Refusal:
        """The fused matmul by a table, in the pack of a lookup that is tied to it where there is one."""
        graph = vulkan_graphs(self._file)[site.read.where.around]
        kind = matmuls.activations(graph, site.read) if isinstance(site.read, FloatMatmul) else None
        if kind is None:
            return Refusal(
                code="activation-dtype", detail="activations are of a type that no fused matmul takes"
            )
        pack = linear_pack(grid, self._readers(table.consumers), kind)
        return pack if isinstance(pack, Refusal) else FusedMatmul(pack=pack, activations=kind)

    def _pack(self, grid: Grid, consumers: frozenset[Consumer]) -> Q4Pack | Refusal:
        return any_lookup_pack(grid, self._readers(consumers))

    def _readers(self, consumers: frozenset[Consumer]) -> Readers:
        choices = self._choices
        return Readers(consumers=consumers, layout=choices.lookup_layout, scales=choices.scales)

    def _against(self, site: Site, *, sound: bool) -> "_Against":
        return _Against(self._file, self._runtime, site.read, self._known, sound)


class _Offers:
    """What a table offers to its sites: made once for all lookups, and for all matmuls."""

    def __init__(self, planner: _Planner, found: Grid | NoGrid, table: Table) -> None:
        self._planner, self._found, self.table = planner, found, table
        self._made: dict[Consumer, FusedLookup | Refusal] = {}

    @property
    def grid(self) -> Grid | None:
        """The grid of the table."""
        return self._found if isinstance(self._found, Grid) else None

    def of(self, site: Site) -> FusedLookup | Refusal:
        """The offer to one site."""
        if isinstance(self._found, NoGrid):
            return self._found.refusal()
        if site.consumer not in self._made:
            self._made[site.consumer] = (
                self._planner.matmul(self._found, self.table, site)
                if site.consumer is Consumer.MATMUL
                else self._planner.lookup(self._found, self.table)
            )
        return self._made[site.consumer]


@dataclass(frozen=True, slots=True)
class _Against:
    """What speaks against a fused lookup at one place: the runtime, the call as it is, or faults that it would bring."""

    file: PteFile
    runtime: Runtime
    read: TableRead | FloatMatmul
    known: Mapping[str, int]
    sound: bool  # whether it is known to bring none

    def __call__(self, offer: FusedLookup) -> Refusal | None:
        refused = not_in_runtime(offer, self.runtime) or misfit(self.file, self.read, offer.pack)
        if refused is not None or self.sound:
            return refused
        return new_fault(self.file, {self.read.where: offer.pack}, self.runtime, self.known)


def new_fault(file: PteFile, packs: Packs, runtime: Runtime, known: Mapping[str, int]) -> Refusal | None:
    """Return the first fault that the edited file would have beyond those that are known of the file."""
    findings = lint(edited(file, packs), runtime.version) if packs else ()
    after = _placed(findings)
    for finding in faults(findings):
        if after[_said(finding)] > known.get(_said(finding), 0):
            return Refusal(code=finding.code, detail=f"{finding.name}: {finding.hint}", hint=finding.hint)
    return None


def _placed(findings: Iterable[Finding]) -> Mapping[str, int]:
    """Count faults by what is wrong, wherever it is: edited delegates may have other numbers."""
    counts: dict[str, int] = {}
    for key in _keys(findings):
        counts[key] = counts.get(key, 0) + 1
    return counts


def _keys(findings: Iterable[Finding]) -> Iterator[str]:
    yield from (_said(finding) for finding in faults(findings))


def _said(finding: Finding) -> str:
    return f"{finding.code} {finding.name} {finding.hint}"
