"""The folder of `--cache`: what earlier runs made, checked by hashes when it is read.

DIR/KEY.json is the SHA-256 of what follows, a newline, and JSON; DIR/SHA256.pte a file that entries name by its SHA-256.
That may be a run's output under a second name: who edits the one in place has edited the other, whose hash is then another.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from vkfuse.errors import VkfuseError
from vkfuse.mapping import map_file
from vkfuse.options import Options
from vkfuse.output import Publication, named_again, reported
from vkfuse.pages import digest
from vkfuse.provenance import provenance

_MOST: Final = 64 << 20  # bytes of an entry's JSON
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class MissedError(Exception):
    """No earlier run can stand in; the message says why."""


@dataclass(frozen=True, slots=True)
class Entries:
    """A folder of entries."""

    folder: Path

    def made(self) -> None:
        """Make the folder, or raise OutputError."""
        with reported(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def read(self, key: str) -> Any:
        """Return the JSON of an entry. MissedError."""
        path = self._path(f"{key}.json")
        if not path.is_file():
            raise MissedError("no run before had this graph, these options and versions")
        try:
            with path.open("rb") as stream:
                sha256, text = stream.readline(_MOST), stream.read(_MOST)
        except OSError as error:
            raise MissedError(f"the entry cannot be read: {error.strerror}") from error
        with damaged():
            if hashlib.sha256(text).hexdigest().encode() != sha256.strip():
                raise ValueError("another hash")
            return json.loads(text)

    def file(self, sha256: Any) -> Path:
        """Return the file of that hash, which nobody has checked yet. MissedError for what is no hash, and for no file."""
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise MissedError("the entry is damaged")
        path = self._path(f"{sha256}.pte")
        if not path.is_file():
            raise MissedError("the entry's file is gone")
        return path

    def keep(self, key: str, of: Mapping[str, Any], file: Path | None = None, sha256: str = "") -> None:
        """Store an entry, and the file that it names by its hash. OutputError."""
        text = json.dumps(of).encode()
        with Publication() as publication:
            place = self._path(f"{sha256}.pte")
            if file is not None and not _holds(place, sha256):
                with reported(self.folder):
                    place.unlink(missing_ok=True)
                stored = publication.file(place, "--cache")
                with reported(self.folder):
                    named_again(file, stored)
            entry = publication.file(self._path(f"{key}.json"), "--cache")
            with reported(self.folder):
                entry.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)

    def _path(self, name: str) -> Path:
        return self.folder / name


def _holds(path: Path, sha256: str) -> bool:
    try:
        return digest(map_file(path)).hex() == sha256
    except VkfuseError:
        return False


@contextlib.contextmanager
def damaged() -> Iterator[None]:
    """Within, what cannot be made of an entry's JSON, or of its file, is a MissedError."""
    try:
        yield
    except (VkfuseError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MissedError("the entry is damaged") from error


def made_with(options: Options) -> tuple[Any, ...]:
    """Return what any entry depends on: versions, what is known of the runtime, this package's own files."""
    made = provenance(options, ())
    return (made.versions, made.runtime_data, _package())


@cache
def _package() -> str:
    """The SHA-256 of the package's files: in a source tree they change and the version does not."""
    home = Path(__file__).parent
    found = hashlib.sha256()
    files = (path for path in home.rglob("*") if path.is_file() and path.parent.name != "__pycache__")
    for path in sorted(files):
        found.update(f"{path.relative_to(home)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()
