"""Exported programs taken apart and put together again: damaged, or with something that would run code."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

WEIGHT, WEIGHTS = "data/weights/weight_0", "data/weights/model_weights_config.json"
CONSTANTS, MODEL = "data/constants/model_constants_config.json", "models/model.json"


@dataclass(frozen=True)
class Touch:
    """Unpickled, it runs a command that leaves a file."""

    mark: Path

    def __reduce__(self):
        import os  # noqa: PLC0415 - beside the call

        return os.system, (f"touch {self.mark}",)


@dataclass
class Archive:
    """The members of a .pt2 without their common folder; `extra` follow them, names may repeat.

    The last one, whose name ends with 10, stands `repeated` times more in the directory, as 11, 12, ...
    """

    members: dict[str, bytes]
    extra: list[tuple[str, bytes]] = field(default_factory=list)
    folder: str = "model/"
    repeated: int = 0

    def edit_json(self, member: str, change: Callable[[Any], None]) -> None:
        """Change a member in place."""
        value = json.loads(self.members[member])
        change(value)
        self.members[member] = json.dumps(value).encode()

    def encoded(self) -> bytes:
        """The archive's bytes, uncompressed as torch writes them."""
        whole = zipped((self.folder + name, data) for name, data in (*self.members.items(), *self.extra))
        return _with_repeated(whole, self.repeated) if self.repeated else whole


def take_apart(path: Path) -> Archive:
    """The members of a written program."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        return Archive({name.split("/", 1)[1]: archive.read(name) for name in names})


def zipped(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A zip of the members, in order; names may repeat."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


_DIRECTORY_END, _LOCATOR = struct.Struct("<4s4H2LH"), struct.Struct("<4sLQL")
_DIRECTORY_END_64 = struct.Struct("<4sQ2H2L4Q")


def _parts(archive: bytes) -> tuple[bytes, bytes, int]:
    """The members, the directory, and the number of entries of a zip without a comment."""
    _, _, _, _, count, size, at, _ = _DIRECTORY_END.unpack(archive[-_DIRECTORY_END.size :])
    return archive[:at], archive[at : at + size], count


def _with_repeated(archive: bytes, times: int) -> bytes:
    """The archive with the directory's last entry, name_10, repeated as name_11 and so on: bytes that count again."""
    members, directory, count = _parts(archive)
    last = directory[directory.rindex(b"PK\1\2") :]
    directory += b"".join(last.replace(b"_10", f"_{11 + n}".encode(), 1) for n in range(times))
    end = _DIRECTORY_END.pack(b"PK\5\6", 0, 0, count + times, count + times, len(directory), len(members), 0)
    return members + directory + end


def behind_another(shown: bytes, hidden: bytes) -> bytes:
    """Two archives of one layout: Python counts offsets from the second's start, torch from the file's."""
    members, directory, _ = _parts(hidden)
    assert len(members) == len(_parts(shown)[0])
    return members + directory + shown


def with_two_directories(shown: bytes, hidden: bytes) -> bytes:
    """Two archives: Python takes the directory record beside its locator, torch the one that the locator points to."""
    members, directory, count = _parts(shown)
    hidden_members, hidden_directory, _ = _parts(hidden)
    moved = _moved(hidden_directory, len(members))
    body = members + hidden_members

    def record(size: int, at: int) -> bytes:
        return _DIRECTORY_END_64.pack(b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, at)

    at = len(body)
    body += moved + record(len(moved), at)
    pointed = len(body) - _DIRECTORY_END_64.size
    at = len(body)
    body += directory + record(len(directory), at)
    body += _LOCATOR.pack(b"PK\6\7", 0, pointed, 1)
    return body + _DIRECTORY_END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)


def _moved(directory: bytes, by: int) -> bytes:
    """A directory whose members stand `by` bytes later."""
    moved, at = bytearray(directory), 0
    while at < len(moved):
        name, extra, comment = struct.unpack_from("<3H", moved, at + 28)
        struct.pack_into("<L", moved, at + 42, struct.unpack_from("<L", moved, at + 42)[0] + by)
        at += 46 + name + extra + comment
    return bytes(moved)


def torch_file(object_pickle: bytes, more: Mapping[str, bytes] | None = None) -> bytes:
    """A torch.save file around a pickle."""
    entries = {"data.pkl": object_pickle, "byteorder": b"little", "version": b"3\n", **(more or {})}
    return zipped([(f"archive/{name}", data) for name, data in entries.items()])


def legacy_torch_file(bad: object) -> bytes:
    """A torch.save file older than the zip format: five pickles in a row, the bad one fourth."""
    stream = io.BytesIO()
    torch.save({"weight": 1}, stream, _use_new_zipfile_serialization=False)
    stream.seek(0)
    head = [pickle.load(stream) for _ in range(3)]  # noqa: S301 - written above
    return b"".join(pickle.dumps(part, protocol=2) for part in (*head, bad, []))
