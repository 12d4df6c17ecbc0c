"""Read an operator's arguments off a node, however they were passed."""

from typing import Any

from torch import fx


def argument(node: fx.Node, index: int, name: str, default: Any = None) -> Any:
    """The argument `name` of `node`, at position `index` of the schema, `default` where it is not given."""
    return node.args[index] if index < len(node.args) else node.kwargs.get(name, default)
