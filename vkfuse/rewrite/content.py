"""When two tensors are stored once: equal shape, dtype and bytes."""

import hashlib
from typing import Any, Final

import torch
from torch.multiprocessing.reductions import StorageWeakRef

_KNOWN: Final[dict[Any, dict[tuple[Any, ...], str]]] = {}  # by references that keep no storage alive
_MOST: Final = 1 << 12  # storages that may be known, those included that are gone


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


def _digest(tensor: torch.Tensor) -> str:
    digest = hashlib.sha256()
    if tensor.numel():
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
