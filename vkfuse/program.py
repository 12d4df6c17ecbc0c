"""A .pt2, or a program in memory, as a `Program`: functional, every weight a plain constant with a name."""

import contextlib
import io
import pickle
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch.export import ExportedProgram

from vkfuse.errors import InputError, LoweringError, UnsafePickleError
from vkfuse.guard import check_archive, is_allowed
from vkfuse.operators import register_operators


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """An exported program whose constants are plain, contiguous tensors that own their storage.

    `exported` is never edited: rewrites work on a copy. `bytes` is the size of the .pt2, None for a program in memory.
    """

    exported: ExportedProgram
    name: str
    bytes: int | None

    @property
    def example_inputs(self) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The stored example inputs as (args, kwargs), None where the archive has none."""
        return self.exported.example_inputs  # type: ignore[no-any-return]


def load(path: Path, *, allow_pickle: bool = False) -> Program:
    """Read a .pt2 from `path`, or from stdin where it is `-`, after the guard has looked through it.

    Raises InputError (unreadable, not an exported program) and UnsafePickleError.
    """
    name = "stdin" if str(path) == "-" else str(path)
    source, size = _open(path, name)
    unpickling = contextlib.nullcontext() if allow_pickle else _guarded_unpickling()
    with source, check_archive(source, name, allow_pickle=allow_pickle) as archive, unpickling:
        exported = _deserialize(archive, name)
    return Program(exported=plain(exported, name), name=name, bytes=size)


def from_exported(exported: ExportedProgram, name: str = "program") -> Program:
    """A `Program` of a program in memory; `exported` itself stays as it is."""
    register_operators()
    return Program(exported=plain(exported, name), name=name, bytes=None)


def _open(path: Path, name: str) -> tuple[IO[bytes], int]:
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read()
            return io.BytesIO(data), len(data)
        return path.open("rb"), path.stat().st_size
    except OSError as error:
        raise InputError(
            f"{name}: {error.strerror or error}", hint="check the path and its permissions"
        ) from error


class _GuardedUnpickler(pickle.Unpickler):
    """Imports only what the guard allows: a second line, for what the guard might have read differently."""

    def find_class(self, module: str, name: str) -> Any:
        """The class or function `module.name`. Raises UnsafePickleError where it is not allowed."""
        if not is_allowed(f"{module}.{name}"):
            raise UnsafePickleError(f"a pickle wants to import {module}.{name!r}, which is not allowed")
        return super().find_class(module, name)


class _GuardedPickle:
    """The part of the pickle module that torch.load uses."""

    Unpickler = _GuardedUnpickler
    load = staticmethod(lambda stream, **options: _GuardedUnpickler(stream, **options).load())


@contextlib.contextmanager
def _guarded_unpickling() -> Iterator[None]:
    """Let every torch.load within that is not restricted to weights use the guarded unpickler."""
    unguarded = torch.load

    def guarded(*args: Any, weights_only: bool | None = None, **options: Any) -> Any:
        if weights_only is False:
            options["pickle_module"] = _GuardedPickle
        return unguarded(*args, weights_only=weights_only, **options)

    torch.load = guarded
    try:
        yield
    finally:
        torch.load = unguarded


def _deserialize(source: IO[bytes], name: str) -> ExportedProgram:
    """``torch.export.load`` with torchao and ExecuTorch's operators registered."""
    register_operators()
    try:
        exported = torch.export.load(source)
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{name}: {error.message}", hint=error.hint) from error
    except Exception as error:  # upstream raises anything on a damaged archive
        raise InputError(
            f"{name}: torch.export.load failed: {_first_line(error)}",
            hint=f"export the program again with torch {torch.__version__.split('+')[0]}",
        ) from error
    exported._guards_code = []  # source text that ExportedProgram.module() would execute  # noqa: SLF001
    return exported


def plain(exported: ExportedProgram, name: str) -> ExportedProgram:
    """Unwrap tensor subclasses, functionalize, and give each constant its own contiguous storage.

    Raises LoweringError where the program cannot be decomposed.
    """
    try:
        unwrapped = _frozen(exported).run_decompositions({})
    except Exception as error:  # tracing runs the user's operators
        raise LoweringError(
            f"{name}: run_decompositions failed: {_first_line(error)}",
            hint="unwrap tensor subclasses before export (torchao.utils.unwrap_tensor_subclass)",
        ) from error
    own: dict[tuple[object, ...], torch.Tensor] = {}
    for constants in (unwrapped.state_dict, unwrapped.constants):
        for key, value in constants.items():
            if isinstance(value, torch.Tensor):
                constants[key] = _own(value, own)
    return unwrapped  # type: ignore[no-any-return]


def _frozen(exported: ExportedProgram) -> ExportedProgram:
    """The same program with parameters that need no gradient: what they write to a buffer could not be traced else."""
    return ExportedProgram(
        root=exported.graph_module,
        graph=exported.graph,
        graph_signature=exported.graph_signature,
        state_dict={key: _without_gradient(value) for key, value in exported.state_dict.items()},
        range_constraints=exported.range_constraints,
        module_call_graph=exported.module_call_graph,
        example_inputs=exported.example_inputs,
        constants=exported.constants,
        verifiers=exported.verifiers,
    )


def _without_gradient(value: torch.Tensor) -> torch.Tensor:
    if isinstance(value, torch.nn.Parameter):
        return torch.nn.Parameter(value.detach(), requires_grad=False)
    return value


def _own(tensor: torch.Tensor, seen: dict[tuple[object, ...], torch.Tensor]) -> torch.Tensor:
    """`tensor` as a contiguous tensor over a storage of just its size; the same view gives the same tensor."""
    key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
    whole = (
        tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    )
    if not whole:
        copy = seen.setdefault(key, tensor.detach().contiguous().clone())
        return (
            torch.nn.Parameter(copy, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else copy
        )
    return tensor


def constants_of(exported: ExportedProgram) -> Mapping[str, torch.Tensor]:
    """Placeholder name -> tensor, for each parameter, buffer and lifted constant of `exported`."""
    signature = exported.graph_signature
    targets = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    found = {}
    for placeholder, target in targets.items():
        value = exported.state_dict.get(target, exported.constants.get(target))
        if isinstance(value, torch.Tensor):
            found[placeholder] = value
    return found


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__
