"""``nn.Embedding(max_norm=...)`` renormalizes rows in place before it looks them up; no runtime has that operator.

A row's norm depends on that row alone, so that renormalizing all rows of a constant table gives every lookup the rows
that it would have had. What is left of it in the table shows in no later lookup: a renormalized row stays as it is.
"""

from collections.abc import Iterator

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import behind, readers
from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.each import Repairs, replaces

aten = torch.ops.aten


def renormalize_whole_tables(exported: ExportedProgram) -> Repairs:
    """Let each renormalization of a table cover all of its rows, which makes its result a constant."""
    editor = GraphEditor(exported)
    kept = [*_only_renormalized(exported)]
    editor.forget(kept)
    return _of_constants(editor.finish() if kept else exported)


@replaces(aten.embedding_renorm.default, code="renormalized", detail="max_norm applied to every row")
def _of_constants(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    *chain, table = _chain(node)
    if table not in editor.constants or not all(map(_only_looked_up, chain)):
        return None
    rows = editor.constant(torch.arange(table.meta["val"].shape[0]), f"{node.name}.rows")
    return editor.again(node, x=table, indices=rows)


def _only_renormalized(exported: ExportedProgram) -> Iterator[str]:
    """Yield buffers of which the program renormalizes rows, by one norm, looks them up, and does no more."""
    nodes = {node.name: node for node in exported.graph.nodes}
    for result, buffer in exported.graph_signature.buffers_to_mutate.items():
        chain = [*_chain(nodes[result])]
        table = chain.pop()
        alone = exported.graph_signature.inputs_to_buffers.get(table.name) == buffer
        if (
            chain
            and alone
            and {*readers(table, (aten.detach.default,))} == {chain[-1]}
            and all(map(_only_looked_up, chain))
        ):
            yield buffer


def _chain(node: fx.Node) -> Iterator[fx.Node]:
    """Yield renormalizations of renormalized rows, from the last one, and then the table."""
    while node.target == aten.embedding_renorm.default:
        yield node
        node = behind(operand(node, "x"), (aten.detach.default,))
    yield node


def _only_looked_up(node: fx.Node) -> bool:
    """Whether only lookups with the same indices read a renormalization, or are renormalized likewise."""
    return all(
        (u.target == aten.embedding.default and u.args[1] is node.args[1])
        or (u.target == aten.embedding_renorm.default and u.args[2:] == node.args[2:])
        or u.op == "output"
        for u in readers(node, (aten.detach.default,))
    )
