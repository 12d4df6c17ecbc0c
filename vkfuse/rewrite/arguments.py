"""Read an operator's arguments off a node, however they were passed, and what is known of its value."""

from typing import Any

import torch
from torch import fx


def argument(node: fx.Node, index: int, name: str, default: Any = None) -> Any:
    """The argument `name` of `node`, at position `index` of the schema, `default` where it is not given."""
    return node.args[index] if index < len(node.args) else node.kwargs.get(name, default)


def is_dynamic(node: fx.Node) -> bool:
    """Whether a tensor has a symbolic size."""
    return any(isinstance(size, torch.SymInt) for size in node.meta["val"].shape)
