"""`vkfuse verify MODEL.pte --against MODEL.pt2`: run the file's own bytes, and say whether they are the program."""

import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from rich.console import Console

from vkfuse.commands.formats import Format
from vkfuse.errors import InputError
from vkfuse.lower.quiet import quiet
from vkfuse.program.check import Checked
from vkfuse.program.load import load
from vkfuse.program.operators import register_operators
from vkfuse.pte.model import PteFile
from vkfuse.pte.ptd import read_ptd
from vkfuse.pte.reader import read_pte
from vkfuse.verify.files import verify_against_file
from vkfuse.verify.render import dumps, render_text
from vkfuse.verify.verdict import Verification
from vkfuse.verify.verify import VerifyOptions, verify_file


def verify(
    model: Path,
    against: Path | Checked | PteFile,
    *,
    inputs: Path | None = None,
    external: tuple[Path, ...] = (),
    options: VerifyOptions | None = None,
    max_memory: int | None = None,
    verbose: bool = False,
) -> Verification:
    """Compare `model` with the program, or the file, `against`; `external` are its .ptd files. InputError, FormatError."""
    chosen = options or VerifyOptions()
    with quiet(verbose=verbose):
        register_operators()
        given = None if inputs is None else (read_inputs(inputs), MappingProxyType[str, object]({}))
        data = {key: blob for path in external for key, blob in read_ptd(path).items()}
        chosen = replace(chosen, inputs=given or chosen.inputs, external=data)
        if isinstance(against, PteFile):
            return verify_against_file(read_pte(model, external=data), against, chosen)
        return verify_file(model, load(against, max_memory=max_memory).exported, chosen)


def render(verification: Verification, fmt: Format, console: Console) -> None:
    """Write the verification to the console."""
    if fmt is Format.JSON:
        console.file.write(dumps(verification))
    else:
        render_text(verification, console)


def read_inputs(path: Path) -> tuple[Any, ...]:
    """Read positional inputs: a .pt of a tuple, list or mapping of tensors, or an .npz in the order of its arrays.

    Nothing in the file can run code. InputError for anything else.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"cannot read inputs from {path}: it is no file", hint="save them to a file")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return tuple(torch.from_numpy(arrays[name]) for name in arrays.files)
        stored = torch.load(path, weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"cannot read inputs from {path}: {error}") from error
    except Exception as error:  # torch.load raises pickle's errors, whatever they are
        raise InputError(
            f"cannot read inputs from {path}: {type(error).__name__}",
            hint="save a tuple of tensors with torch.save, or use an .npz",
        ) from error
    if isinstance(stored, torch.Tensor):
        return (stored,)
    if isinstance(stored, Mapping):
        return tuple(stored.values())
    if isinstance(stored, list | tuple):
        return tuple(stored)
    raise InputError(f"{path} holds {type(stored).__name__}", hint="save a tuple of tensors with torch.save")
