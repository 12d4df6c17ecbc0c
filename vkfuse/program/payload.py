"""The tensors of a checked .pt2, over its mapped bytes; pickles by an unpickler that imports nothing but what is allowed.

This is what torch.load and torch.export.load do (torch/serialization.py, torch/export/pt2_archive/_package.py), without a
second reader of the archive: what was checked is what is loaded.
"""

import io
import pickle
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch._export.serde.schema import TensorMeta
from torch._export.serde.serialize import _dict_to_dataclass, deserialize_scalar_type

from vkfuse.errors import InputError, UnsafePickleError
from vkfuse.program.archive import Archive
from vkfuse.program.check import Payload
from vkfuse.program.names import is_allowed_class
from vkfuse.program.pickles import HINT

_AGAIN = "export the program again"
_ALIGNMENT = 16  # bytes, of the widest dtype


def tensors(archive: Archive, payloads: Iterable[Payload]) -> dict[str, torch.Tensor]:
    """Stored tensors by name; those of one member share its storage.

    Raises InputError for sizes that a member's bytes do not cover, UnsafePickleError for names off the list.
    """
    flat: dict[tuple[str, torch.dtype], torch.Tensor] = {}
    found = {}
    for payload in payloads:
        tensor = unpickled(archive, payload.member) if payload.pickled else _strided(archive, payload, flat)
        if not isinstance(tensor, torch.Tensor):
            raise InputError(f"{archive.where}: {payload.member} holds no tensor", hint=_AGAIN)
        found[payload.name] = tensor
    return found


def _strided(
    archive: Archive, payload: Payload, flat: dict[tuple[str, torch.dtype], torch.Tensor]
) -> torch.Tensor:
    """A tensor of raw bytes by its sizes, strides and offset."""
    meta = _dict_to_dataclass(TensorMeta, payload.meta)  # type: ignore[no-untyped-call]
    dtype = deserialize_scalar_type(meta.dtype)
    whole = flat.setdefault((payload.member, dtype), _flat(archive, payload.member, dtype))
    numbers = [
        [number.as_int for number in part] for part in (meta.sizes, meta.strides, [meta.storage_offset])
    ]
    sizes, strides, (offset,) = numbers
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if 0 not in sizes and last >= whole.numel():
        raise InputError(
            f"{archive.where}: {payload.name}: {whole.numel():,} values are stored, {last + 1:,} are declared",
            hint=_AGAIN,
        )
    tensor = torch.as_strided(whole, sizes, strides, offset)
    if payload.parameter:
        return torch.nn.Parameter(tensor, requires_grad=meta.requires_grad)
    return tensor


def _flat(archive: Archive, member: str, dtype: torch.dtype) -> torch.Tensor:
    """A member's bytes as values in a row, in place where they are aligned; what is written to them no file sees."""
    data = archive.read(member)
    if data.nbytes % dtype.itemsize:
        raise InputError(f"{archive.where}: {member} is no whole number of {dtype}", hint=_AGAIN)
    if not data:
        return torch.empty(0, dtype=dtype)
    flat = torch.frombuffer(data, dtype=torch.uint8)
    aligned = flat if flat.data_ptr() % _ALIGNMENT == 0 else flat.clone()
    return aligned.view(dtype)


def unpickled(archive: Archive, member: str) -> Any:
    """What torch.save put in `member`. Raises InputError where it is damaged, UnsafePickleError for names off the list."""
    inside = Archive(archive.read(member), f"{archive.where}: {member}")
    if "byteorder" in inside and bytes(inside.read("byteorder")) != sys.byteorder.encode():
        raise InputError(f"{inside.where}: saved on a machine of another byte order", hint=_AGAIN)
    return _Unpickler(inside).load()


class _Unpickler(pickle.Unpickler):
    """Builds tensors over an archive's bytes; a second line behind `check_pickle`, for what that might have misread."""

    def __init__(self, archive: Archive) -> None:
        super().__init__(io.BytesIO(archive.read("data.pkl")), encoding="utf-8")
        self._archive = archive
        self._storages: dict[str, torch.UntypedStorage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The class or function `module.name`, for a kind of storage its dtype. UnsafePickleError where not allowed."""
        if not is_allowed_class(f"{module}.{name}"):
            raise UnsafePickleError(
                f"{self._archive.where}: a pickle wants to import {module}.{name!r}, which is not allowed",
                hint=HINT,
            )
        if name.endswith("Storage"):
            return _StorageKind(name)
        return super().find_class(module, name)

    def persistent_load(self, saved: Any) -> Any:
        """The storage that `("storage", kind, key, location, elements)` stands for (torch/serialization.py, `_load`)."""
        _, kind, key, location, _ = saved
        if location != "cpu":
            raise InputError(
                f"{self._archive.where}: a tensor on {str(location)[:40]!r}",
                hint="move the program to the CPU before export",
            )
        if key not in self._storages:
            self._storages[key] = _flat(self._archive, f"data/{key}", torch.uint8).untyped_storage()
        storage = self._storages[key]
        return torch.storage.TypedStorage(wrap_storage=storage, dtype=kind.dtype, _internal=True)  # type: ignore[no-untyped-call]


class _StorageKind:
    """What a pickle calls `torch.FloatStorage`: a dtype, and nothing that can be called."""

    def __init__(self, name: str) -> None:
        known: Mapping[str, torch.dtype] = torch.storage._storage_type_to_dtype_map()  # noqa: SLF001 - torch has no public name for it
        self.dtype = known.get(name, torch.uint8)
