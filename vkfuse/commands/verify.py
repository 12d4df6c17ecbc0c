"""`vkfuse verify MODEL.pte --against MODEL.pt2`: run the file's own bytes, and say whether they are the program."""

import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console

from vkfuse.errors import CheckFailedError, InputError
from vkfuse.program.check import Checked
from vkfuse.program.load import load
from vkfuse.program.operators import register_operators
from vkfuse.pte.model import PteFile
from vkfuse.pte.ptd import read_ptd
from vkfuse.pte.reader import given_as_pte, read_pte
from vkfuse.quiet import quiet
from vkfuse.report.format import Format
from vkfuse.report.text import captured
from vkfuse.verify.files import verify_against_file
from vkfuse.verify.render import dumps, render_text
from vkfuse.verify.verdict import Verification
from vkfuse.verify.verify import VerifyOptions, verify_file


def verify(
    model: Path | str,
    against: Path | str | Checked | PteFile,
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
        other = _opened(against)
        if isinstance(other, PteFile):
            return verify_against_file(read_pte(model, external=data), other, chosen)
        return verify_file(Path(model), load(other, max_memory=max_memory).exported, chosen)


def _opened(against: Path | str | Checked | PteFile) -> Path | Checked | PteFile:
    """Read what is a .pte by its first bytes."""
    if isinstance(against, Checked | PteFile):
        return against
    return read_pte(against) if given_as_pte(against) else Path(against)


def render(verification: Verification, fmt: Format, console: Console) -> None:
    """Write the verification to the console; anything but text on a terminal without colour."""
    if fmt is Format.TEXT and console.is_terminal:
        render_text(verification, console)
    else:
        console.file.write(rendered(verification, fmt, width=None if console.soft_wrap else console.width))


def rendered(verification: Verification, fmt: Format, *, width: int | None = None) -> str:
    """Return the verification without colour: JSON, or text on `width` columns or as a log."""
    if fmt is Format.JSON:
        return dumps(verification)
    return captured(width, lambda console: render_text(verification, console))


def require_same(verification: Verification, model: Path) -> None:
    """Raise CheckFailedError where the file was not shown to compute what the program does."""
    if not verification.ok:
        text = f": {verification.message}" if verification.message else ""
        raise CheckFailedError(f"{model}: {verification.status}{text}", hint=verification.hint)


_INPUTS: Final = "save a tuple of tensors with torch.save, or arrays with numpy.savez"


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
        raise InputError(f"cannot read inputs from {path}: {error}", hint=_INPUTS) from error
    except Exception as error:  # torch.load raises pickle's errors, whatever they are
        raise InputError(
            f"cannot read inputs from {path}: {type(error).__name__}",
            hint=_INPUTS,
        ) from error
    if isinstance(stored, torch.Tensor):
        return (stored,)
    if isinstance(stored, Mapping):
        return tuple(stored.values())
    if isinstance(stored, list | tuple):
        return tuple(stored)
    raise InputError(f"{path} holds {type(stored).__name__}", hint="save a tuple of tensors with torch.save")
