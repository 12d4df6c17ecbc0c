"""What every rewritten lookup shares: indices as one row, results back in the site's shape."""

from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from vkfuse.rewrite.sites import Site

if TYPE_CHECKING:
    from vkfuse.rewrite.editor import GraphEditor

aten = torch.ops.aten


def needs_wrapping(site: Site) -> bool:
    """Whether the site's operator counts negative indices from the end, which a lookup does not."""
    return site.node.target == aten.index.Tensor


def _many_rows(site: Site) -> bool:
    return bool(site.lookups().meta["val"].ndim != 1)


def steps(site: Site) -> tuple[str, ...]:
    """Codes of what is done to the indices."""
    codes = {"indices-flattened": _many_rows(site), "indices-wrapped": needs_wrapping(site)}
    return tuple(code for code, done in codes.items() if done)


def flat_indices(editor: "GraphEditor", site: Site, rows: int) -> fx.Node:
    """The site's indices as one row [n]: the shader reads only one row of an index texture."""
    indices: Any = editor.node(site.lookups())
    if needs_wrapping(site):
        unwrapped = indices
        indices = editor.once(("wrapped", unwrapped, rows), lambda: _wrap(editor, unwrapped, rows))
    if not _many_rows(site):
        return indices  # type: ignore[no-any-return]
    return editor.once(("flat", indices), lambda: editor.call(aten.reshape.default, indices, [-1]))  # type: ignore[no-any-return]


def restore_shape(editor: "GraphEditor", site: Site, rows: fx.Node, columns: int) -> fx.Node:
    """Rows [n, columns] in the shape of the site: its indices' shape and the columns."""
    if not _many_rows(site):
        return rows
    return editor.call(aten.reshape.default, rows, [*editor.sizes(site.lookups()), columns])


def _wrap(editor: "GraphEditor", indices: fx.Node, rows: int) -> Any:
    """Negative indices counted from the end. Not by remainder: ExecuTorch's kernel takes the sign of C on integers."""
    negative = editor.call(aten.lt.Scalar, indices, 0)
    return editor.call(aten.where.self, negative, editor.call(aten.add.Tensor, indices, rows), indices)
