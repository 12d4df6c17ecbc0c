"""Apply decisions to a copy of the graph."""

from collections.abc import Sequence

from torch.export import ExportedProgram

from vkfuse.rewrite.decisions import TablePlan
from vkfuse.rewrite.editor import GraphEditor


def apply(exported: ExportedProgram, plans: Sequence[TablePlan]) -> ExportedProgram:
    """`exported` with every proposal of `plans` in place, sites in the order of the graph; folding comes later."""
    editor = GraphEditor(exported)
    order = {node: i for i, node in enumerate(exported.graph.nodes)}
    decisions = [d for plan in plans for d in plan.decisions if d.proposal is not None]
    for decision in sorted(decisions, key=lambda d: order[d.site.node]):
        if decision.proposal is not None:
            with editor.before(decision.site.node):
                editor.replace(decision.site.node, decision.proposal.rewrite(editor, decision.site))
    return editor.finish()
