"""What a file was made with: packages, runtime data, options, command."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from vkfuse import __version__
from vkfuse.options import Options
from vkfuse.report.model import Provenance
from vkfuse.runtime.versions import data_digest
from vkfuse.typed import Typed

_PACKAGES: Final = ("torch", "torchao", "executorch")
_Word = str | int | float | bool | None


def provenance(options: Options, command: Sequence[str]) -> Provenance:
    """Return what a run with `options` was made with."""
    return Provenance(
        versions={"vkfuse": __version__, **{name: _version(name) for name in _PACKAGES}},
        runtime_data=data_digest(options.runtime),
        options=dict(_words(options)),
        command=tuple(command),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # of a source tree on the path
        return "unknown"


def _words(of: Any) -> Iterator[tuple[str, _Word]]:
    """Yield the options by name, those of parts beside the others; several values are one text."""
    for each in fields(of):
        value = getattr(of, each.name)
        if isinstance(value, Typed):
            yield from _words(value)
        else:
            yield each.name, _word(value)


def _word(value: object) -> _Word:
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={limit}" for key, limit in value.items())
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
