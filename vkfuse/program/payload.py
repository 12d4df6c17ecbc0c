"""The tensors of a checked .pt2, over its mapped bytes; pickles by an unpickler that imports nothing but what is allowed.

This is what torch.load and torch.export.load do (torch/serialization.py, torch/export/pt2_archive/_package.py), without a
second reader of the archive: what was checked is what is loaded.
"""

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch._export.serde.schema import TensorMeta
from torch._export.serde.serialize import _dict_to_dataclass, deserialize_scalar_type

from vkfuse.errors import InputError
from vkfuse.program.archive import Archive
from vkfuse.program.check import Payload
from vkfuse.program.unpickler import TensorUnpickler, check_inside, check_small

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
    key = payload.member, dtype
    if key not in flat:
        flat[key] = _flat(archive, payload.member, dtype)
    numbers = [
        [number.as_int for number in part] for part in (meta.sizes, meta.strides, [meta.storage_offset])
    ]
    sizes, strides, (offset,) = numbers
    check_inside(f"{archive.where}: {payload.name}", flat[key].numel(), offset, sizes, strides)
    tensor = torch.as_strided(flat[key], sizes, strides, offset)
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
    storages: dict[str, torch.UntypedStorage] = {}

    def storage(key: str, location: str) -> torch.UntypedStorage:
        if location != "cpu":
            raise InputError(
                f"{inside.where}: a tensor on {location[:40]!r}",
                hint="move the program to the CPU before export",
            )
        if key not in storages:
            storages[key] = _flat(inside, f"data/{key}", torch.uint8).untyped_storage()
        return storages[key]

    made = TensorUnpickler(inside.read("data.pkl"), storage, inside.where).load()
    check_small(made, inside.where)
    return made
