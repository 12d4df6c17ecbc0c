"""What a serialized program declares of its sizes, for the bounds before anything is loaded. Imports no torch."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from vkfuse.program.bounds import Step

# torch/_export/serde/schema.py, ScalarType; what is not here has at most 8 bytes.
_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 9: 4, 10: 8, 11: 16, 12: 1, 13: 2, 28: 2}
_BYTES_OTHERWISE: Final = 8


def declared_bytes(meta: Mapping[str, Any]) -> int:
    """Bytes of a tensor by its serialized TensorMeta; a symbolic size counts as nothing."""
    sizes = [_whole(size.get("as_int", 0)) for size in meta["sizes"]]
    return math.prod(sizes[:_MAX_DIMENSIONS]) * _BYTES.get(meta["dtype"], _BYTES_OTHERWISE)


_MAX_DIMENSIONS: Final = 64  # of a tensor; torch refuses more


def _whole(size: Any) -> int:
    """A size. TypeError for anything but a whole number: a product with a text would repeat it."""
    if type(size) is not int:
        raise TypeError(f"a size that is a {type(size).__name__}")
    return max(0, size)


def declared_steps(model: Mapping[str, Any]) -> list[Step]:
    """The calls of the program's own graph, and what its outputs read."""
    graph = model["graph_module"]["graph"]
    values = graph["tensor_values"]
    steps = [_step(node, values) for node in graph["nodes"]]
    outputs = tuple(_tensors(graph["outputs"]))
    return [*steps, Step(name="", reads=outputs, makes=(), bytes=0)]


def _step(node: Mapping[str, Any], values: Mapping[str, Any]) -> Step:
    makes = tuple(_tensors(node["outputs"]))
    return Step(
        name=makes[0] if makes else "",
        reads=tuple(_tensors(node["inputs"])),
        makes=makes,
        bytes=sum(declared_bytes(values[name]) for name in makes if name in values),
    )


def _tensors(value: Any) -> Iterator[str]:
    """The names of values that stand anywhere in arguments or results."""
    if isinstance(value, dict):
        if isinstance(value.get("as_name"), str):
            yield value["as_name"]
        for key, inner in value.items():
            if key in {"as_tensor", "as_tensors", "as_optional_tensors", "as_nested_tensors"}:
                yield from _named(inner)
            else:
                yield from _tensors(inner)
    elif isinstance(value, list):
        for item in value:
            yield from _tensors(item)


def _named(value: Any) -> Iterator[str]:
    of: Iterable[Any] = value if isinstance(value, list) else [value]
    for item in of:
        if isinstance(item, dict) and isinstance(item.get("name"), str):
            yield item["name"]
        elif isinstance(item, (dict, list)):
            yield from _tensors(item) if isinstance(item, dict) else _named(item)


def stored_names(model: Mapping[str, Any]) -> set[str]:
    """Names of the placeholders that stored tensors fill."""
    specs = model["graph_module"]["signature"]["input_specs"]
    return {inner["arg"]["name"] for spec in specs for kind, inner in spec.items() if kind in _STORED}


_STORED: Final = frozenset({"parameter", "buffer", "tensor_constant"})
