"""Exported programs taken apart and put together again: damaged, or with something that would run code."""

import io
import json
import pickle
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
    """The members of a .pt2 without their common folder; `extra` follow them, names may repeat."""

    members: dict[str, bytes]
    extra: list[tuple[str, bytes]] = field(default_factory=list)
    folder: str = "model/"

    def edit_json(self, member: str, change: Callable[[Any], None]) -> None:
        """Change a member in place."""
        value = json.loads(self.members[member])
        change(value)
        self.members[member] = json.dumps(value).encode()

    def write(self, path: Path) -> Path:
        """Write the archive, uncompressed as torch does."""
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in (*self.members.items(), *self.extra):
                archive.writestr(self.folder + name, data)
        return path


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
