"""Which compute shaders an operator asks the runtime for, where the name can be derived surely.

An operator that stands in no table here asks for shaders that are not modelled; lint says nothing about them.
Source: runtime/graph/ops/impl and runtime/graph/ops/utils of backends/vulkan in ExecuTorch 1.5; each function
names its file.
"""

from collections.abc import Callable, Iterator
from typing import Final

from vkfuse.pte.calls import Call, Site, dtype_suffix
from vkfuse.pte.enums import VkDataType, VkStorageType
from vkfuse.pte.vulkan import VkTensor

_MAX_TEXTURE_2D: Final = 16384  # maxImageDimension2D of common devices; a smaller limit asks for a buffer
_FLOATS: Final = (VkDataType.FLOAT16, VkDataType.FLOAT32)

_BINARY: Final = {
    "aten.add.Tensor": "add",
    "aten.sub.Tensor": "sub",
    "aten.mul.Tensor": "mul",
    "aten.div.Tensor": "div",
    "aten.div.Tensor_mode": "floor_divide",
    "aten.pow.Tensor_Tensor": "pow",
    "aten.minimum.default": "minimum",
    "aten.eq.Tensor": "eq",
    "aten.lt.Tensor": "lt",
    "aten.le.Tensor": "le",
    "aten.gt.Tensor": "gt",
    "aten.ge.Tensor": "ge",
    "aten.bitwise_and.Tensor": "bitwise_and",
    "aten.logical_and.default": "bitwise_and",
    "aten.bitwise_or.Tensor": "bitwise_or",
    "aten.logical_or.default": "bitwise_or",
}
_CLAMPS: Final = ("clamp", "hardtanh", "relu", "relu6")
_UNARY: Final = {
    **{f"aten.{name}.default": "clamp" for name in _CLAMPS},
    **{
        f"aten.{name}.default": name
        for name in (
            *("abs", "cos", "exp", "gelu", "neg", "sigmoid", "sin", "sqrt", "rsqrt", "tanh", "hardshrink"),
            *("hardswish", "hardsigmoid", "leaky_relu", "log10", "round", "bitwise_not"),
        )
    },
}
_BY_OUTPUT: Final = {
    "aten.embedding.default": "embedding",  # Embedding.cpp
    "aten.index.Tensor": "index_tensor",  # IndexTensor.cpp
    "et_vk.rms_norm.default": "rms_norm",  # RmsNorm.cpp
}


def shader_names(call: Call) -> Iterator[str]:
    """Yield the shaders that a call asks for."""
    if call.name in _BINARY:
        yield from _binary(call, _BINARY[call.name])
    elif call.name in _UNARY:
        yield from _unary(call, _UNARY[call.name])
    elif call.name in _BY_OUTPUT:
        yield from _by_output(call, _BY_OUTPUT[call.name])
    elif call.name in _OTHERS:
        yield from _OTHERS[call.name](call)


def staging_shader_names(site: Site) -> Iterator[str]:
    """Yield the shaders that copy a delegate's inputs and outputs (StagingUtils.cpp).

    Of the two that copy a texture out, chosen by the device, one stands for both.
    """
    values = site.graph.values
    for index in site.graph.input_ids:
        tensor = values[index]
        if isinstance(tensor, VkTensor) and not tensor.constant:
            yield _copy_in(site, tensor, tensor.dtype, _staging(tensor))
    for index in site.graph.output_ids:
        tensor = values[index]
        if isinstance(tensor, VkTensor) and not tensor.constant:
            prefix = (
                "buffer_to_nchw" if _in_buffer(site, tensor) else f"image_to_nchw{_texture(site, tensor)}"
            )
            yield f"{prefix}_{dtype_suffix(tensor.dtype)}_{dtype_suffix(_staging(tensor))}"


def _staging(tensor: VkTensor) -> VkDataType:
    """Element type of the buffer that a tensor is copied through (get_staging_scalar_type_of)."""
    return tensor.dtype if tensor.staging_dtype is VkDataType.UNSET else tensor.staging_dtype


def _copy_in(site: Site, tensor: VkTensor, dtype: VkDataType, staging: VkDataType) -> str:
    """Return the shader that fills a tensor from a buffer."""
    prefix = "nchw_to_buffer" if _in_buffer(site, tensor) else f"nchw_to_image{_texture(site, tensor)}"
    return f"{prefix}_{dtype_suffix(dtype)}_{dtype_suffix(staging)}"


def _in_buffer(site: Site, tensor: VkTensor) -> bool:
    """Whether the tensor is stored in a buffer."""
    return site.storage(tensor) is VkStorageType.BUFFER


def _texture(site: Site, tensor: VkTensor) -> str:
    """`_texture3d` or `_texture2d`."""
    return f"_{site.storage_suffix(tensor)}"


def _binary(call: Call, operator: str) -> Iterator[str]:
    """BinaryOp.cpp: named after the output's storage and the first argument's type."""
    first, out = call.tensor(0), call.tensor(-1)
    if first and out:
        yield f"binary_{operator}_{call.site.storage_suffix(out)}_{dtype_suffix(first.dtype)}"


def _unary(call: Call, operator: str) -> Iterator[str]:
    """UnaryOp.cpp: type before storage."""
    out = call.tensor(-1)
    if out:
        yield f"{operator}_{dtype_suffix(out.dtype)}_{call.site.storage_suffix(out)}"


def _by_output(call: Call, operator: str) -> Iterator[str]:
    """Yield the usual form: storage and type of the output."""
    out = call.tensor(-1)
    if out:
        yield f"{operator}_{call.site.storage_suffix(out)}_{dtype_suffix(out.dtype)}"


def _view(call: Call) -> Iterator[str]:
    """View.cpp: the output's type."""
    out = call.tensor(-1)
    if out:
        yield f"view_{_resource(call.site, out)}_{dtype_suffix(out.dtype)}"


def _to_copy(call: Call) -> Iterator[str]:
    """ToCopy.cpp: equal types and float <-> half are blits, which need no shader."""
    source, out = call.tensor(0), call.tensor(-1)
    if source and out and source.dtype is not out.dtype and not {source.dtype, out.dtype} <= set(_FLOATS):
        yield _convert(call.site, source, out)


def _to_dim_order_copy(call: Call) -> Iterator[str]:
    """View.cpp: a view, or a conversion where the types differ."""
    source, out = call.tensor(0), call.tensor(-1)
    if source and out:
        yield from _view(call) if source.dtype is out.dtype else (_convert(call.site, source, out),)


def _convert(site: Site, source: VkTensor, out: VkTensor) -> str:
    """add_view_copy_convert_node in View.cpp."""
    return f"view_convert_{_resource(site, out)}_{dtype_suffix(source.dtype)}_{dtype_suffix(out.dtype)}"


def _resource(site: Site, tensor: VkTensor) -> str:
    """`buffer` or `texture`, as View.cpp spells it."""
    return "buffer" if _in_buffer(site, tensor) else "texture"


def _prepack(call: Call) -> Iterator[str]:
    """Staging.cpp: a constant into a tensor; 8-bit textures have two ways by device, and are left out."""
    constant, out = call.tensor(0), call.tensor(-1)
    if constant and out and (out.dtype.bytes > 1 or _in_buffer(call.site, out)):
        yield _copy_in(call.site, out, out.dtype, constant.dtype)


def _embedding_q4gsw(call: Call) -> Iterator[str]:
    """EmbeddingQ4gsw.cpp, and QuantizedLinear.cpp for the packed weight's storage.

    A linear weight is packed into [ceil(V/8), D/4] texels, in a buffer where an axis exceeds the limit.
    """
    weight, scales, out = call.tensor(0), call.tensor(1), call.tensor(-1)
    if not (weight and scales and out and weight.dims):
        return
    name = "embedding_q4gsw" + ("_float_scales" if scales.dtype is not VkDataType.FLOAT16 else "")
    yield f"nchw_to_buffer_{dtype_suffix(scales.dtype)}_{dtype_suffix(scales.dtype)}"
    if not call.flag(4):
        yield "nchw_to_buffer_uint8_uint8"
    else:
        storage = _packed_storage(weight)
        yield f"pack_q4_linear_weight_{storage}"
        name += f"_linear_weight_{storage}"
    yield f"{name}_{call.site.storage_suffix(out)}_{dtype_suffix(out.dtype)}"


def _packed_storage(weight: VkTensor) -> str:
    """Storage of a packed linear weight [V, D/2] (prepack_quantized_linear_weight)."""
    row_texels, rows = weight.dims[-1] // 2, -(-weight.dims[0] // 8)
    return "texture2d" if max(row_texels, rows) <= _MAX_TEXTURE_2D else "buffer"


def _linear_q4gsw(call: Call) -> Iterator[str]:
    """Q4gswLinear.cpp: one shader for many rows, one for a single row, both made at load."""
    source, scales, out = call.tensor(0), call.tensor(2), call.tensor(-1)
    if not (source and scales and out and out.dims):
        return
    suffix = f"{call.site.storage_suffix(out)}_{dtype_suffix(out.dtype)}"
    way = "" if source.dtype is VkDataType.FLOAT32 else "tin__"
    width = out.dims[-1]
    split = "g1w64" if width <= 1024 else "g4w16" if width <= 4096 else "g8w8"
    yield "pack_q4_linear_weight__w_4x8_nc_buffer"
    yield f"nchw_to_buffer_{dtype_suffix(source.dtype)}_{dtype_suffix(scales.dtype)}"
    yield f"q4gsw_linear_gemm__{way}w_4x8_nc_{suffix}"
    yield f"q4gsw_linear_gemv_coop__w_4x8_nc_buffer_{split}_{suffix}"


_OTHERS: Final[dict[str, Callable[[Call], Iterator[str]]]] = {
    "aten.view_copy.default": _view,
    "aten._to_copy.default": _to_copy,
    "dim_order_ops._to_dim_order_copy.default": _to_dim_order_copy,
    "et_vk.prepack.default": _prepack,
    "et_vk.embedding_q4gsw.default": _embedding_q4gsw,
    "et_vk.linear_q4gsw.default": _linear_q4gsw,
    "et_vk.q4gsw_linear.default": _linear_q4gsw,
}
