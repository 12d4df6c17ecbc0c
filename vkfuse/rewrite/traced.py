"""Torch's functions and arithmetic on nodes, written into the graph where an editor stands: what fx's proxies are for."""

import operator
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import fx
from torch.fx.proxy import TracerBase

if TYPE_CHECKING:
    from vkfuse.rewrite.editor import GraphEditor

_KNOWN: Final = frozenset(
    [
        *("shape", "dtype", "ndim", "dim", "dim_order", "stride", "numel"),
        *("is_floating_point", "is_complex", "is_contiguous"),
    ]
)
END: Final = (1 << 63) - 1  # of a slice that takes all that is left
_SPELLED: Final = {"truediv": "div", "and_": "bitwise_and"}


_REFLECTED: Final = {operator.add: "add", operator.mul: "mul", operator.sub: "rsub"}


class Traced(fx.Proxy):
    """A node as the tensor that it computes: its sizes and its type are known, all else becomes calls."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.node.meta["val"], name) if name in _KNOWN else super().__getattr__(name)


class Tracer(TracerBase):
    """Makes calls of ATen's operators, of the overloads that torch chooses, out of functions, methods and arithmetic."""

    def __init__(self, editor: "GraphEditor") -> None:
        self._editor = editor

    @property
    def graph(self) -> fx.Graph:  # type: ignore[override]
        """The graph that is written into, a copy made once something is."""
        return self._editor.graph

    def create_proxy(
        self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *_: Any, **__: Any
    ) -> Any:
        """The result of a function, of a method by its name, or of an operator."""
        del kind
        args, kwargs = untraced((args, kwargs))
        if target is operator.getitem and isinstance(args[0].meta["val"], torch.Tensor):
            return Traced(self._sliced(*args), self)
        if target in _REFLECTED and not isinstance(args[0], fx.Node):  # a number in front
            target, args = _REFLECTED[target], args[::-1]
        if target == "to":
            return Traced(self._editor.cast(*args), self)
        return Traced(self._editor.call(_operator(target), *args, **kwargs), self)

    def _sliced(self, x: fx.Node, parts: Any) -> fx.Node:
        """``x[..., a:b, c:d]``, the dots in front of all or missing."""
        parts = parts if isinstance(parts, tuple) else (parts,)
        dots = parts[0] is ...
        for dim, part in enumerate(parts[1:] if dots else parts, 1 - len(parts) if dots else 0):
            if part != slice(None):
                bounds = part.start or 0, END if part.stop is None else part.stop
                x = self._editor.call(torch.ops.aten.slice.Tensor, x, dim, *bounds, *_step(part))
        return x


def _operator(target: Any) -> Any:
    if isinstance(target, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)) or target is operator.getitem:  # noqa: SLF001
        return target
    name = target if isinstance(target, str) else target.__name__
    return getattr(torch.ops.aten, _SPELLED.get(name, name))


def _step(part: slice) -> tuple[int, ...]:
    return () if part.step is None else (part.step,)


def untraced(value: Any) -> Any:
    """`value` with nodes for the tensors that stand for them."""
    return fx.node.map_aggregate(value, lambda of: of.node if isinstance(of, fx.Proxy) else of)


def wrapped(indices: torch.Tensor, size: Any) -> torch.Tensor:
    """Negative `indices` plus `size`. Not by remainder: ExecuTorch's kernel takes the sign of C on integers."""
    return torch.where(indices < 0, torch.ops.aten.add.Tensor(indices, size), indices)
