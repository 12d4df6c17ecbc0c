"""When two tensors are stored once: equal shape, dtype and bytes."""

import hashlib
from typing import Any, Final

import torch
from torch.multiprocessing.reductions import StorageWeakRef

_KNOWN: Final[dict[Any, dict[tuple[Any, ...], str]]] = {}  # by references that keep no storage alive
_MOST: Final = 1 << 12  # storages that may be known, those included that are gone
_BEGINNING: Final = 1 << 12  # elements


def content(tensor: torch.Tensor) -> tuple[str, torch.dtype, tuple[int, ...]]:
    """A key that tensors of equal dtype, shape and bits share (SHA-256 of the contiguous bytes).

    Bytes are hashed once while their storage lives and torch has not written to it.
    """
    if tensor.is_inference():  # which has no count of writes
        return _digest(tensor), tensor.dtype, tuple(tensor.shape)
    if len(_KNOWN) >= _MOST:
        for gone in [storage for storage in _KNOWN if storage.expired()]:
            del _KNOWN[gone]
    storage: Any = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
    known = _KNOWN.setdefault(storage, {})
    place = (tensor.storage_offset(), (*tensor.shape,), tensor.stride(), tensor.dtype, tensor._version)  # noqa: SLF001 - the only count
    if place not in known:
        known[place] = _digest(tensor)
    return known[place], tensor.dtype, place[1]


class Bits:
    """A tensor that nobody writes to, as a key: equal where `content` is; those that begin alike are compared."""

    __slots__ = ("_kind", "_tensor")

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        beginning = _digest(_flat(tensor)[:_BEGINNING])
        self._kind = (beginning, tensor.dtype, tuple(tensor.shape))

    def __hash__(self) -> int:
        """Of the beginning."""
        return hash(self._kind)

    def __eq__(self, other: object) -> bool:
        """Whether dtype, shape and bits are the same."""
        if not isinstance(other, Bits) or self._kind != other._kind:
            return False
        return self._tensor is other._tensor or torch.equal(
            plain_bytes(self._tensor), plain_bytes(other._tensor)
        )


def _digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(plain_bytes(tensor).numpy().data).hexdigest()


def plain_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The contiguous bytes of a tensor, uint8 [n], of any shape and dtype."""
    return _flat(tensor).view(torch.uint8)


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1)
