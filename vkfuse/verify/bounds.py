"""What a file may ask for: a result is sized on torch's meta device before it is computed."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from torch._ops import OpOverload

MOST_RESULT_BYTES: Final = 1 << 32
_FACTORY: Final = "device"  # the argument of operators that make tensors out of nothing


class TooLargeError(ValueError):
    """A result that no honest file asks for."""


def check_result(operator: OpOverload, positional: Sequence[Any], keywords: dict[str, Any]) -> None:
    """See that a result is of a bearable size; TooLargeError. What torch cannot size is let through."""
    names = {argument.name for argument in operator._schema.arguments}  # noqa: SLF001 - the only way to a schema
    placed = {**keywords, _FACTORY: "meta"} if _FACTORY in names else keywords
    with contextlib.suppress(NotImplementedError, RuntimeError, TypeError):
        with torch.no_grad():
            result = operator(
                *map(_meta, positional), **{name: _meta(value) for name, value in placed.items()}
            )
        for tensor in _tensors(result):
            check_bytes(tensor.numel() * tensor.element_size())


def check_bytes(count: int) -> None:
    """See that a tensor is of a bearable size; TooLargeError."""
    if count > MOST_RESULT_BYTES:
        raise TooLargeError(f"a result of {count} bytes")


def _meta(value: Any) -> Any:
    """Return tensors without their data."""
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, list):
        return [_meta(item) for item in value]
    return value


def _tensors(result: Any) -> Iterator[torch.Tensor]:
    for member in result if isinstance(result, tuple | list) else (result,):
        if isinstance(member, torch.Tensor):
            yield member
