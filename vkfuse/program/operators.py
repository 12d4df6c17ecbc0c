"""The operators that quantized programs and ExecuTorch's Vulkan backend name, registered with torch."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import torch

from vkfuse.program.kernels import silenced_kernels
from vkfuse.program.lighter import import_executorch, import_llm_operators


@cache
def register_operators() -> tuple[Any, ...]:
    """Import the packages that register operators, and give the fused operators shapes for tracing.

    The installed executorch defines ``et_vk`` operators by Python code that unpacks the whole weight; with a bias and a
    symbolic number of rows that code cannot be traced. A Meta kernel gives the same shape and dtype at no cost.
    """
    import_executorch()  # registers quantized_decomposed
    import executorch.backends.vulkan.custom_ops_lib  # noqa: F401, PLC0415 - seconds to import; registers et_vk
    import torchao.quantization  # noqa: F401, PLC0415 - registers torchao's operators and tensor classes

    with silenced_kernels():
        import_llm_operators()

    library: Any = torch.library.Library("et_vk", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name, (definition, schema) in _DEFINED_NOWHERE.items():
        if not hasattr(torch.ops.et_vk, name):
            library.define(name + schema)
            library.impl(name, definition, "CompositeExplicitAutograd")
    library.impl("linear_q4gsw", _linear_q4gsw, "Meta")
    library.impl("linear_dq8ca_q4gsw", _linear_dq8ca_q4gsw, "Meta")
    library.impl("embedding_q4gsw", _embedding_q4gsw, "Meta")
    own: Any = torch.library.Library("vkfuse", "DEF")  # type: ignore[no-untyped-call]
    own.define(
        "update_cache(Tensor cache, Tensor value, Tensor position, int parts, Tensor[] readers) -> Tensor"
    )
    own.impl("update_cache", _update_cache, "CPU")
    own.impl("update_cache", _like_the_cache, "Meta")
    own.define("custom_sdpa(Tensor query, Tensor keys, Tensor values, Tensor position) -> Tensor")
    own.impl("custom_sdpa", _custom_sdpa, "CPU")
    own.impl("custom_sdpa", _like_the_query, "Meta")
    torchs: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    for kind in ("channel", "tensor"):
        torchs.impl(f"fake_quantize_per_{kind}_affine_cachemask", _like_and_where, "Meta")
    return (library, own, torchs)


def _like_and_where(x: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Shapes of fake quantization by channels, of which torch knows none: what is rounded, and where it is in range."""
    return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)


def _update_cache(
    cache: torch.Tensor,
    value: torch.Tensor,
    position: torch.Tensor,
    parts: int,
    readers: Sequence[torch.Tensor],
) -> torch.Tensor:
    """`cache` [1, C, N, D] with `value` [1, S, N, D] in its rows from `position`, one integer, on; S in `parts`.

    `readers` are computed from the cache as it is before.
    """
    del parts, readers
    written = cache.clone()
    first = int(position.reshape(-1)[0])
    written[:, first : first + value.shape[1]] = value
    return written


def _like_the_cache(
    cache: torch.Tensor,
    value: torch.Tensor,
    position: torch.Tensor,
    parts: int,
    readers: Sequence[torch.Tensor],
) -> torch.Tensor:
    del value, position, parts, readers
    return torch.empty_like(cache)


def _custom_sdpa(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, position: torch.Tensor
) -> torch.Tensor:
    """`query` [1, S, N, D] over [1, C, M, D]: row i sees columns 0 to `position`, one integer, plus i."""
    last = int(position.reshape(-1)[0]) + torch.arange(query.shape[1])
    q, k, v = (x.transpose(1, 2) for x in (query, keys, values))
    seen = torch.arange(keys.shape[1]) <= last[:, None]
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, seen, enable_gqa=True).transpose(1, 2)


def _like_the_query(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, position: torch.Tensor
) -> torch.Tensor:
    del keys, values, position
    return query.new_empty(query.shape)


def _linear_q8csw(
    x: torch.Tensor, weights: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Product with int8 weights [outputs, inputs], scaled by output: impl/QuantizedLinear.cpp, ``linear_q8csw``."""
    out = torch.nn.functional.linear(x, weights.to(x.dtype)) * scales
    return out if bias is None else out + bias


def _conv2d_q8csw(
    image: torch.Tensor,
    weights: torch.Tensor,
    scales: torch.Tensor,
    bias: torch.Tensor | None,
    kernel_size: list[int],
    *window: Any,
) -> torch.Tensor:
    """Convolution by int8 weights [outputs, patch], scaled by output: impl/QuantizedConvolution.cpp, ``conv2d_q8csw``.

    A patch has the channels of a group's pixels one after the other, then zeros; `window` is as torch has it.
    """
    channels, pixels = image.shape[1] // window[-1], kernel_size[0] * kernel_size[1]
    patches = weights[:, : pixels * channels].reshape(len(weights), *kernel_size, channels)
    plain = patches.permute(0, 3, 1, 2).to(image.dtype)
    out = torch.nn.functional.conv2d(image, plain, None, *window) * scales[:, None, None]
    return out if bias is None else out + bias[:, None, None]


# Runtimes have them, but executorch 1.5 defines them nowhere.
_WINDOW: Final = "SymInt[] kernel_size, SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt groups"
_DEFINED_NOWHERE: Final = {
    "linear_q8csw": (_linear_q8csw, "(Tensor x, Tensor weights, Tensor scales, Tensor? bias=None) -> Tensor"),
    "conv2d_q8csw": (
        _conv2d_q8csw,
        f"(Tensor image, Tensor weights, Tensor scales, Tensor? bias, {_WINDOW}) -> Tensor",
    ),
}


def _linear_q4gsw(
    x: torch.Tensor,
    weights: torch.Tensor,
    scales: torch.Tensor,
    group_size: int,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """[..., inputs] -> [..., outputs], the dtype of `x`."""
    del scales, group_size, bias
    return x.new_empty((*x.shape[:-1], weights.shape[0]))


def _linear_dq8ca_q4gsw(
    x: torch.Tensor,
    input_scale: torch.Tensor,
    input_zero_point: torch.Tensor,
    weights: torch.Tensor,
    sums: torch.Tensor,
    scales: torch.Tensor,
    group_size: int,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """[..., inputs] -> [..., outputs], the dtype of `x`."""
    del input_scale, input_zero_point, sums
    return _linear_q4gsw(x, weights, scales, group_size, bias)


def _embedding_q4gsw(
    weight: torch.Tensor,
    scales: torch.Tensor,
    group_size: int,
    indices: torch.Tensor,
    is_linear_weight: bool = False,
) -> torch.Tensor:
    """[...] -> [..., 2 * packed columns], float32 whatever the dtype of the scales."""
    del scales, group_size, is_linear_weight
    return weight.new_empty((*indices.shape, weight.shape[1] * 2), dtype=torch.float32)
