"""Which compute shaders a delegate asks the runtime for while it loads.

One module a family of operators, each with a table from operator to a function that yields names. An operator in
no table asks for shaders that are not modelled (or for none); lint says nothing about them. A dispatch whose
shader is picked by sizes asks at load for the shader of the serialized sizes (DynamicDispatchNode's constructor),
which are upper bounds where shapes are dynamic; smaller sizes ask for others when they come.

Where the choice is the device's, names are those of a device with 16384 texels a side, integer dot products,
no cooperative matrices, and not a Mali. Source: runtime/graph/ops of backends/vulkan in ExecuTorch 1.5; functions
name their file in impl/.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from vkfuse.pte.calls import Call
from vkfuse.pte.shader_names import (
    attention,
    convolution,
    eight_bit,
    elementwise,
    images,
    lookups,
    matmul,
    moves,
    quantized_linear,
    reductions,
)
from vkfuse.pte.shader_names.spelling import Namer
from vkfuse.pte.shader_names.staging import staging_shader_names

__all__ = ["MODELLED", "shader_names", "staging_shader_names"]

MODELLED: Final[Mapping[str, Namer]] = MappingProxyType(
    {
        **elementwise.NAMERS,
        **moves.NAMERS,
        **matmul.NAMERS,
        **quantized_linear.NAMERS,
        **reductions.NAMERS,
        **lookups.NAMERS,
        **attention.NAMERS,
        **convolution.NAMERS,
        **images.NAMERS,
        **eight_bit.NAMERS,
    }
)


def shader_names(call: Call) -> Iterator[str]:
    """Yield the shaders that a call asks for, nothing where they are not sure."""
    if call.name in MODELLED:
        yield from MODELLED[call.name](call)
