"""How torch's operators are called for a file: what it may ask for is sized on the meta device before it is computed."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import torch
from torch._ops import OpOverload

MOST_RESULT_BYTES: Final = 1 << 32
BLOCK_VALUES: Final = 1 << 19  # of a table that are unpacked at a time: 2 MiB of float32
_GROWING: Final = frozenset(
    {
        "arange", "broadcast_to", "constant_pad_nd", "convolution", "empty", "expand_copy", "full", "grid_sampler_2d",
        "im2col", "narrow_copy", "ones", "rand", "randn", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d",
        "repeat", "repeat_interleave", "replication_pad1d", "replication_pad2d", "replication_pad3d", "stack",
        "as_strided_copy", "unfold_copy", "upsample_bilinear2d", "upsample_nearest2d", "_upsample_bilinear2d_aa",
        "view_as_real_copy", "zeros", "_cdist_forward", "_pdist_forward", "max_pool2d_with_indices", "avg_pool2d",
    }
)  # fmt: skip
_FACTORY: Final = "device"  # the argument of operators that make tensors out of nothing


def bind(operator: OpOverload, values: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """Split values in the order of a schema into positional and keyword arguments; of these None is left out."""
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for argument, value in zip(operator._schema.arguments, values, strict=False):  # noqa: SLF001 - the only way to a schema
        if not argument.kwarg_only:
            positional.append(value)
        elif value is not None:
            keywords[argument.name] = value
    return positional, keywords


class TooLargeError(ValueError):
    """A result that no honest file asks for."""


def check_result(operator: OpOverload, positional: Sequence[Any], keywords: dict[str, Any]) -> None:
    """See that a result is of a bearable size; TooLargeError. What torch cannot size is let through."""
    if _may_grow(operator, positional):
        named = tuple((name, _described(value)) for name, value in keywords.items())
        check_bytes(_largest_result(operator, tuple(map(_described, positional)), named))


@lru_cache(maxsize=1 << 10)  # layers and calls ask for the same
def _largest_result(operator: OpOverload, positional: tuple[Any, ...], named: tuple[Any, ...]) -> int:
    """Bytes of the largest tensor that an operator returns of described operands, 0 where torch cannot size it."""
    names = {argument.name for argument in operator._schema.arguments}  # noqa: SLF001 - the only way to a schema
    keywords = {name: _meta(value) for name, value in named}
    placed = {**keywords, _FACTORY: "meta"} if _FACTORY in names else keywords
    with contextlib.suppress(NotImplementedError, RuntimeError, TypeError), torch.no_grad():
        result = operator(*map(_meta, positional), **placed)
        return max((tensor.numel() * tensor.element_size() for tensor in _tensors(result)), default=0)
    return 0


def _may_grow(operator: OpOverload, positional: Sequence[Any]) -> bool:
    """Whether a result may be larger than the largest operand: made from sizes, or of operands of several shapes."""
    packet = operator._schema.name.partition("::")[2]  # noqa: SLF001
    shapes = {value.shape for value in positional if isinstance(value, torch.Tensor) and value.numel() != 1}
    lists = any(
        isinstance(value, list) and any(isinstance(v, torch.Tensor) for v in value) for value in positional
    )
    return packet in _GROWING or lists or len(shapes) > 1


def check_bytes(count: int) -> None:
    """See that a tensor is of a bearable size; TooLargeError."""
    if count > MOST_RESULT_BYTES:
        raise TooLargeError(f"a result of {count} bytes")


def _described(value: Any) -> tuple[Any, ...]:
    """A value's type, and what it is of it, without the data of tensors: hashable."""
    if isinstance(value, torch.Tensor):
        return torch.Tensor, value.shape, value.stride(), value.dtype
    return (list, *map(_described, value)) if isinstance(value, list) else (type(value), value)


def _meta(described: tuple[Any, ...]) -> Any:
    """Return the value that is described, a tensor without its data."""
    kind, *of = described
    if kind is torch.Tensor:
        shape, stride, dtype = of
        return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
    return [*map(_meta, of)] if kind is list else of[0]


def _tensors(result: Any) -> Iterator[torch.Tensor]:
    for member in result if isinstance(result, tuple | list) else (result,):
        if isinstance(member, torch.Tensor):
            yield member
