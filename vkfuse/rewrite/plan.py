"""Decide what becomes of each site, from an unmodified program."""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain

from torch import fx
from torch.export import ExportedProgram

from vkfuse.options import VulkanOptions
from vkfuse.program.tensors import array, described
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.decisions import Decision, Proposal, TablePlan
from vkfuse.rewrite.grids import grid_had_back, numbers_behind, weights_behind
from vkfuse.rewrite.prove import prove
from vkfuse.rewrite.rules import RULES
from vkfuse.rewrite.rules.lookups import fold_lookup
from vkfuse.rewrite.rules.matmuls import input_of
from vkfuse.rewrite.sites import UNCHOSEN, Site, Table
from vkfuse.rewrite.survey import survey
from vkfuse.runtime.judge import judge
from vkfuse.runtime.operands import Operands, Value
from vkfuse.runtime.versions import Runtime
from vkfuse.tables import decisions
from vkfuse.tables.decisions import Refusal, choose, first_fault, not_in_runtime
from vkfuse.tables.floats import Array
from vkfuse.tables.found import NoGrid
from vkfuse.tables.grid import Grid
from vkfuse.tables.q4 import Q4Pack
from vkfuse.tables.readers import Consumer

Plans = tuple[TablePlan, ...]
Choice = decisions.Decision[Site, Proposal]


def plan(
    methods: Mapping[str, ExportedProgram],
    runtime: Runtime,
    choices: VulkanOptions = UNCHOSEN,
) -> dict[str, Plans]:
    """A decision for each site of each table of each method, each with its proof, for a runtime.

    A table of several methods is laid out for all of them, so that they read the same bytes. Lookups come last: they may
    read what matmuls store.
    """
    constants = {name: Constants(exported) for name, exported in methods.items()}
    tables = {name: survey(exported, constants[name]) for name, exported in methods.items()}
    consumers = _consumers(table for found in tables.values() for table in found)
    tables = {
        name: tuple(replace(table, elsewhere=consumers[table.identity], choices=choices) for table in found)
        for name, found in tables.items()
    }
    others = {
        name: [_decided(table, constants[name], runtime, gathers=False) for table in found]
        for name, found in tables.items()
    }
    factors = dict(_factors(zip(tables[name], others[name], strict=True) for name in tables))
    return {
        name: tuple(
            _planned(replace(table, factors=factors.get(table.identity)), constants[name], runtime, known)
            for table, known in zip(found, others[name], strict=True)
        )
        for name, found in tables.items()
    }


_Decided = dict[Site, Decision]


def _decided(table: Table, constants: Constants, runtime: Runtime, *, gathers: bool) -> _Decided:
    """Decisions for the lookups of a table, or for its other sites."""
    sites = (site for site in table.sites if (site.consumer is Consumer.GATHER) is gathers)
    return {site: decide(site, table, constants, runtime) for site in sites}


def _factors(made: Iterable[Iterable[tuple[Table, _Decided]]]) -> Iterator[tuple[Hashable, Array]]:
    """Yield the scales that 4-bit matmuls store, by the identity of their table."""
    for table, decided in chain.from_iterable(made):
        for decision in decided.values():
            if decision.proposal is not None and isinstance(decision.proposal.pack, Q4Pack):
                yield table.identity, array(decision.proposal.stored["scales_t"])


def _consumers(tables: Iterable[Table]) -> dict[Hashable, frozenset[Consumer]]:
    """What all sites of each table do with it, by the table's identity."""
    found: dict[Hashable, frozenset[Consumer]] = {}
    for table in tables:
        found[table.identity] = found.get(table.identity, frozenset()) | table.consumers
    return found


def _planned(table: Table, constants: Constants, runtime: Runtime, known: _Decided) -> TablePlan:
    decided = known | _decided(table, constants, runtime, gathers=True)
    return TablePlan(table=table, decisions=tuple(decided[site] for site in table.sites))


def before_fused_lookups(exported: ExportedProgram, plans: Plans) -> Plans:
    """`plans` of `exported` with every looked-up table folded: the file that ExecuTorch made before it had the lookup."""
    constants = Constants(exported)

    def folded(decision: Decision, table: Table) -> Decision:
        return (
            _fold(decision.site, table, constants, ())
            if decision.site.consumer is Consumer.GATHER
            else decision
        )

    return tuple(
        TablePlan(table=p.table, decisions=tuple(folded(d, p.table) for d in p.decisions)) for p in plans
    )


def decide(site: Site, table: Table, constants: Constants, runtime: Runtime) -> Decision:
    """The first rule whose rebuilt table is exact, by the grid as it was read or as the numbers have it; else fold it."""
    refusals = (*_unreadable(site, constants),)
    for read in _readings(site, constants):
        choice = _choice(read, table, constants, runtime)
        refusals = (*refusals, *choice.refusals)
        if choice.proposal is not None:
            return Decision(site=read, proposal=choice.proposal, refusals=refusals)
        if not any(refusal.code == "not-exact" for refusal in choice.refusals):
            break
    return _fold(site, table, constants, refusals)


def _readings(site: Site, constants: Constants) -> Iterator[Site]:
    """The site with the grid that the graph shows, then, should that not be the table's, with the grid of its numbers."""
    if site.grid is None:
        return
    yield site
    if not site.grid.found:
        found = grid_had_back(site, constants)
        if isinstance(found, Grid):
            yield replace(site, grid=found)


def _choice(site: Site, table: Table, constants: Constants, runtime: Runtime) -> Choice:
    """The first rule whose rebuilt table is exact, of one reading."""
    return choose(
        site,
        (rule(site, table, constants) for rule in RULES[site.consumer]),
        lambda offer: not_in_runtime(offer, runtime) or _not_on_this_input(site, offer, runtime),
        lambda offer: prove(site, offer, constants),
    )


def _unreadable(site: Site, constants: Constants) -> Iterator[Refusal]:
    """Why no rule can be asked about a site."""
    if site.consumer is Consumer.OTHER:
        yield _unknown_consumer(site)
    elif site.consumer is Consumer.CONSTANT_GATHER:
        yield Refusal(code="constant-indices", detail="the rows looked up are known: only they are stored")
    elif site.grid is None:
        yield _on_no_grid(site, constants)


def _on_no_grid(site: Site, constants: Constants) -> Refusal:
    """What a table is stored in, and how close its floats are to a grid."""
    near = grid_had_back(site, constants)
    some = isinstance(near, NoGrid) and near.exact
    kind = None if some or site.operand is None else _kind_behind(site.operand, constants)
    if site.operand is not None and kind is not None:
        taken = f"as floats it takes {site.operand.meta['val'].nbytes:,} bytes"
        return Refusal(code="table-not-readable", detail=f"stored in {kind} {_UNEVEN}; {taken}", hint=_EVEN)
    numbers = f": {near.refusal().detail}" if isinstance(near, NoGrid) else ""
    detail = f"values and scales cannot be told apart in the graph, nor from the numbers{numbers}"
    return Refusal(code="table-not-readable", detail=detail)


def _kind_behind(operand: fx.Node, constants: Constants) -> str | None:
    """The type that a table on no known grid is stored in; None where it is none, or one of integers as they are."""
    stored = [] if weights_behind(operand, constants) else numbers_behind(operand, constants)
    return str(stored[0].meta["val"].dtype).removeprefix("torch.") if stored else None


_UNEVEN = "that stand for levels which are not evenly spaced, and the runtime multiplies by none such"
_EVEN = "quantize it to integers of 4 or 8 bits, here with --quantize"


def _fold(site: Site, table: Table, constants: Constants, refusals: tuple[Refusal, ...]) -> Decision:
    proposal = fold_lookup(site, table, constants)
    return Decision(
        site=site,
        proposal=proposal,
        refusals=refusals,
        folded=None if site.operand is None else constants.key(site.operand),
    )


def _not_on_this_input(site: Site, proposal: Proposal, runtime: Runtime) -> Refusal | None:
    """What the runtime has against a fused operator on the site's input: an image, or a matrix of its greatest sizes."""
    if site.consumer is Consumer.GATHER or not proposal.operators:
        return None
    source, values = described(input_of(site).meta["val"]), dict[str, Value]()
    if site.consumer is Consumer.MATMUL:
        source = replace(source, dims=(source.rows, *source.dims[-1:]))
    elif site.operand is not None:
        weight = described(site.operand.meta["val"], constant=True)
        values = {"weight": weight, "groups": source.dims[1] // weight.dims[1]}
    call = Operands(operator=proposal.operators[0], values={"input": source, **values})
    return first_fault(judge(call, runtime))


def _unknown_consumer(site: Site) -> Refusal:
    target = getattr(site.node.target, "name", lambda: site.node.op)()
    return Refusal(
        code="consumer-not-fused", detail=f"read by {target}", hint="read the table by a lookup or a linear"
    )
