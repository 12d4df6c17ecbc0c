"""The records of operators, a family a file.

`shaders` of a record yields what a call asks the runtime for while a delegate loads; an operator without asks for shaders
that are not modelled, or for none. A dispatch whose shader is picked by sizes asks at load for the shader of the
serialized sizes (DynamicDispatchNode's constructor), which are upper bounds where shapes are dynamic; smaller sizes ask
for others when they come. Source: runtime/graph/ops of backends/vulkan in ExecuTorch 1.5; functions name their file in
impl/, and "measured" means run on the 1.5.0 runtime.
"""

from collections.abc import Mapping
from typing import Final

from vkfuse.runtime.operators import (
    attention,
    binary,
    convolution,
    eight_bit,
    fill,
    image,
    linear,
    lookup,
    matmul,
    moves,
    norm,
    reduce,
    unary,
)
from vkfuse.runtime.record import Operator, Version

_FAMILIES: Final = (
    lookup,
    matmul,
    linear,
    eight_bit,
    convolution,
    attention,
    norm,
    reduce,
    binary,
    unary,
    moves,
    fill,
    image,
)
NEWEST: Final = (99, 0, 0)


def _by_name() -> dict[str, tuple[Operator, ...]]:
    found: dict[str, tuple[Operator, ...]] = {}
    for family in _FAMILIES:
        for record in family.OPERATORS:
            found[record.name] = (*found.get(record.name, ()), record)
    return found


OPERATORS: Final[Mapping[str, tuple[Operator, ...]]] = _by_name()


def record_of(name: str, version: Version = NEWEST) -> Operator:
    """Return the record of an operator in a version, one that says nothing where there is none."""
    records = OPERATORS.get(name, ())
    return next((r for r in records if r.since <= version <= r.until), Operator(name))
