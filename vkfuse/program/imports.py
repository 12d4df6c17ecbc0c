"""Modules of the user's own that register operators: what ``--import`` names."""

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from vkfuse.errors import InputError, spelled
from vkfuse.program.names import NAMESPACES, admit
from vkfuse.program.operators import register_operators


def import_modules(modules: Sequence[str]) -> None:
    """Import each module, whose code is run, and let programs call what it registers.

    The current folder is looked in last. What is of namespaces that torch and ExecuTorch have none of may have been
    registered before. Raises InputError for a module that cannot be imported.
    """
    if not modules:
        return
    register_operators()
    before = _registered()
    for module in modules:
        _import(module)
    after = _registered()
    admit(name for name in after if name not in before or name.partition(".")[0] not in NAMESPACES)


def _import(module: str) -> None:
    with _from_here():
        try:
            importlib.import_module(module)
        except Exception as error:  # the user's own code raises anything
            raise InputError(
                f"--import {module}: {spelled(error)}",
                hint="name a module as Python's import statement does; its package must be installed or stand here",
            ) from error


@contextmanager
def _from_here() -> Iterator[None]:
    """Look in the current folder too, after all else."""
    here = os.getcwd()  # noqa: PTH109 - sys.path holds text
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _registered() -> frozenset[str]:
    """`namespace.name.overload` of all operators that the dispatcher knows."""
    found = (name.replace("::", ".") for name in torch._C._dispatch_get_all_op_names())  # noqa: SLF001 - torch has no public list
    return frozenset(name if name.count(".") == 2 else f"{name}.default" for name in found)
