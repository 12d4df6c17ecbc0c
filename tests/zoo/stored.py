"""Exported programs of the zoo kept on disk: exporting costs as much as lowering."""

import hashlib
from importlib.metadata import version
from pathlib import Path

import torch
import zoo

from vkfuse.quiet import quiet

_SOURCES = tuple(Path(__file__).with_name(name) for name in ("architectures.py", "zoo.py"))
_PACKAGES = ("torch", "torchao", "transformers")


def exported(setting: zoo.Setting, folder: Path) -> Path:
    """The .pt2 of `setting` in `folder`, made where nothing that it depends on has made it before."""
    path = folder / f"{setting.name}-{_key()}.pt2"
    if not path.exists():
        with quiet():
            partial = path.with_suffix(".partial")
            torch.export.save(zoo.build(setting), partial)
        partial.rename(path)
    return path


def _key() -> str:
    parts = [source.read_bytes() for source in _SOURCES]
    parts += [version(package).encode() for package in _PACKAGES]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]
