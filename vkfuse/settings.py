"""Gates that stand in a file: vkfuse.toml, or `[tool.vkfuse]` of pyproject.toml.

Looked for from a folder upwards, as ruff does, and no further than the root of its repository, as mypy does. The first
folder that has either is the only one that counts; vkfuse.toml goes first.
"""

import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from vkfuse.errors import InputError, VkfuseError
from vkfuse.gates import Gates

COMMANDS: Final = ("optimize", "report")
_RUNTIME: Final = "runtime"
_KEYS: Final = {of.name.replace("_", "-"): of.name for of in fields(Gates)} | {_RUNTIME: _RUNTIME}
_ROOTS: Final = (".git", ".hg")
_HINT: Final = "mend the file, or use --no-config"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a command is told, by a file or by its user: gates by field, and the runtime where it is named."""

    gates: Mapping[str, Any]
    runtime: str | None = None
    path: Path | None = None

    def overruled(self, gates: Mapping[str, Any], runtime: str | None) -> tuple[Gates, str | None]:
        """What holds where the user names `gates` and a `runtime`: each of them in the place of the file's. VkfuseError."""
        return Gates(**{**self.gates, **gates}), self.runtime if runtime is None else runtime


NOTHING: Final = Settings(gates={})


def find_settings(folder: Path, command: str) -> Settings:
    """What the file for `folder` tells `command`; its table `[...command]` goes before the keys beside it. InputError."""
    for path, table in _tables(folder):
        return _settings(path, table, command)
    return NOTHING


def _tables(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yield the files that say something, the nearest first."""
    for place in (folder, *folder.parents):
        own, shared = place / "vkfuse.toml", place / "pyproject.toml"
        if os.path.lexists(own):
            yield own, _read(own)
        elif shared.is_file() and "vkfuse" in (
            tools := _table(shared, "tool", _read(shared).get("tool", {}))
        ):
            yield shared, _table(shared, "tool.vkfuse", tools["vkfuse"])
        if any((place / root).exists() for root in _ROOTS):
            return


def _read(path: Path) -> dict[str, Any]:
    """Read a file of TOML. InputError, of what is no regular file too: checks are never off in silence."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"cannot read {path}: it is no regular file", hint=_HINT)
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {error}", hint=_HINT) from error


def _table(path: Path, name: str, value: object) -> Mapping[str, Any]:
    """Return what has to be a table. InputError."""
    if not isinstance(value, Mapping):
        raise InputError(f"{path}: {name} is no table", hint=_HINT)
    return value


def _settings(path: Path, table: Mapping[str, Any], command: str) -> Settings:
    """Check every key, those of other commands too."""
    common = _checked(path, "", {key: value for key, value in table.items() if key not in COMMANDS})
    own = {name: _checked(path, f"{name}.", _table(path, name, table.get(name, {}))) for name in COMMANDS}[
        command
    ]
    merged = {**common, **own}
    runtime = merged.pop(_RUNTIME, None)
    return Settings(gates=merged, runtime=runtime, path=path)


def _checked(path: Path, where: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return gates by field, and the runtime. InputError that names the file and the key."""
    for key, value in table.items():
        if key not in _KEYS:
            known = "only pyproject.toml has [tool.vkfuse] above its keys"
            known = known if key == "tool" else f"there are {', '.join(sorted(_KEYS))}"
            raise InputError(f"{path}: unknown key {where}{key}", hint=known)
        try:
            _check(key, value)
        except VkfuseError as error:
            raise InputError(f"{path}: {where}{key}: {error.message}", hint=error.hint) from error
    return {_KEYS[key]: value for key, value in table.items()}


def _check(key: str, value: object) -> None:
    """Raise VkfuseError for a value that the key cannot have."""
    if key != _RUNTIME:
        Gates(**dict[str, Any]({_KEYS[key]: value}))
    elif not isinstance(value, str):
        raise VkfuseError(f"the option {key} is {value!r}", hint='a version in quotes, "1.5"')
