"""Who reads which constant of a Vulkan graph, in words."""

from collections.abc import Iterator
from typing import Final

from vkfuse.pte.vulkan import OperatorCall, ValueList, VkTensor, VulkanGraph

_PREPACK: Final = "et_vk.prepack.default"
_MOST_READERS: Final = 32  # kinds of readers that are remembered of one value

# Argument names, from the operators' definitions in backends/vulkan/custom_ops_lib.py and ATen.
_ROLES: Final[dict[str, tuple[str, ...]]] = {
    "et_vk.embedding_q4gsw.default": ("weight", "scales", "group_size", "indices"),
    "et_vk.linear_q4gsw.default": ("input", "weight", "scales", "group_size", "bias"),
    "et_vk.linear_q8csw.default": ("input", "weight", "scales", "bias"),
    "et_vk.linear_dq8ca_q4gsw.default": (
        *("input", "input_scales", "input_zeros", "weight", "weight_sums", "scales", "group_size", "bias"),
    ),
    "et_vk.rms_norm.default": ("input", "weight"),
    "aten.embedding.default": ("weight", "indices"),
    "aten.linear.default": ("input", "weight", "bias"),
    "aten.addmm.default": ("bias", "mat1", "mat2"),
    "aten.mm.default": ("mat1", "mat2"),
    "aten.bmm.default": ("mat1", "mat2"),
    "aten.native_layer_norm.default": ("input", "normalized_shape", "weight", "bias"),
    "aten.convolution.default": ("input", "weight", "bias"),
    "torchao.dequantize_affine.default": ("weight", "block_size", "scales", "zero_points"),
}


def short_name(operator: str) -> str:
    """`et_vk.embedding_q4gsw.default` -> `embedding_q4gsw`; other overloads keep theirs."""
    _, _, name = operator.partition(".")
    return (name or operator).removesuffix(".default")


def shape_label(dtype: str, sizes: tuple[int, ...]) -> str:
    """`float32[64,2]`: an element type and a shape."""
    return f"{dtype}[{','.join(map(str, sizes))}]"


def constant_uses(graph: VulkanGraph) -> dict[int, tuple[str, ...]]:
    """Return what reads each constant (`embedding_q4gsw weight uint8[64,32]`), by constant id."""
    prepacked = _prepacked(graph)
    readers = _readers(graph)
    uses: dict[int, dict[str, None]] = {}
    for index, value in enumerate(graph.values):
        if not isinstance(value, VkTensor) or not value.constant:
            continue
        shape = shape_label(value.dtype.label, value.dims)
        names = [name for source in (index, *prepacked.get(index, ())) for name in readers.get(source, ())]
        found = uses.setdefault(value.constant_id, {})
        found.update((f"{name} {shape}", None) for name in names or ["unused"])
    return {constant: tuple(found) for constant, found in uses.items()}


def _prepacked(graph: VulkanGraph) -> dict[int, dict[int, None]]:
    """Values that are copies of a constant on the GPU, by the constant's value index."""
    copies: dict[int, dict[int, None]] = {}
    for call in graph.chain:
        if call.name == _PREPACK and len(call.args) > 1:
            copies.setdefault(call.args[0], {})[call.args[1]] = None
    return copies


def _readers(graph: VulkanGraph) -> dict[int, dict[str, None]]:
    """`operator role` of each argument, by value index."""
    readers: dict[int, dict[str, None]] = {}
    for call in graph.chain:
        if call.name == _PREPACK:
            continue
        for position, index in _arguments(call, graph):
            known = readers.setdefault(index, {})
            if len(known) < _MOST_READERS:
                known[f"{short_name(call.name)} {_role(call.name, position)}"] = None
    return readers


def _arguments(call: OperatorCall, graph: VulkanGraph) -> Iterator[tuple[int, int]]:
    """(position, value index) of each argument, members of lists included."""
    for position, index in enumerate(call.args):
        value = graph.values[index]
        if isinstance(value, ValueList):
            yield from ((position, member) for member in value.ids)
        else:
            yield position, index


def _role(operator: str, position: int) -> str:
    """Name of an argument."""
    roles = _ROLES.get(operator, ())
    return roles[position] if position < len(roles) else f"arg{position}"
