"""A .pt2, or a program in memory, as a `Program`: functional, every weight a plain constant with a name."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch._export.serde import schema
from torch._export.serde.serialize import ExportedProgramDeserializer, _dict_to_dataclass
from torch._export.utils import _get_shape_env_from_gm
from torch.export import ExportedProgram
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from vkfuse.errors import InputError, LoweringError, spelled
from vkfuse.mapping import hashed
from vkfuse.program import rebuilt
from vkfuse.program.bounds import check_evaluated, check_excess, check_results, memory_limit
from vkfuse.program.check import INPUTS, MODEL, Checked, open_checked
from vkfuse.program.decomposed import decompositions
from vkfuse.program.names import IMPORT_HINT
from vkfuse.program.operators import register_operators
from vkfuse.program.parts import with_parts
from vkfuse.program.payload import tensors, unpickled
from vkfuse.program.rebuilt import check_targets
from vkfuse.program.spelled import spelled_for_code
from vkfuse.program.tensors import owned
from vkfuse.program.widened import in_float32
from vkfuse.program.written import written_as_buffers

_OPERATOR = re.compile(rb'"target": ?"torch\.ops\.(\w+)\.(\w+)\.(\w+)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """An exported program whose constants are plain, contiguous tensors that own their storage.

    `exported` is never edited: rewrites work on a copy. `bytes` is the size of the .pt2, None for a program in memory,
    `sha256` its hash, `mapped` where constants lie. `narrow` is the program as given, where `exported` is it in float32.
    """

    exported: ExportedProgram
    name: str
    bytes: int | None
    sha256: str = ""
    mapped: memoryview = field(default=memoryview(b""), repr=False)
    narrow: ExportedProgram | None = None

    @property
    def example_inputs(self) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The stored example inputs as (args, kwargs), None where the archive has none."""
        return self.exported.example_inputs  # type: ignore[no-any-return]


def load(source: Path | Checked, *, allow_pickle: bool = False, max_memory: int | None = None) -> Program:
    """Read a .pt2 from a path, or from stdin where it is `-`, after it has been looked through.

    `max_memory` bounds in bytes what its constants may evaluate to, in place of a multiple of the file's size.
    Raises InputError (unreadable, not an exported program, beyond all bounds) and UnsafePickleError.
    """
    checked = (
        source
        if isinstance(source, Checked)
        else open_checked(source, allow_pickle=allow_pickle, max_memory=max_memory)
    )
    sha256 = hashed(checked.archive.data).hex()
    register_operators()
    with _reported(checked):
        exported = _trusted(checked) if checked.model is None else _deserialized(checked, checked.model)
    if checked.model is None:
        return _program(plain(exported, checked.name), checked, sha256)
    limit = memory_limit(checked.bytes, max_memory)
    check_targets(exported, checked.name)
    check_excess(rebuilt.excess(exported), limit, checked.name)
    made = plain(exported, checked.name)
    check_results(rebuilt.all_steps(made), checked.bytes, max_memory, checked.name)
    check_evaluated(rebuilt.steps(made.graph), rebuilt.stored_names(made), limit, checked.name)
    return _program(made, checked, sha256)


def _program(exported: ExportedProgram, checked: Checked, sha256: str) -> Program:
    return Program(
        exported=exported,
        name=checked.name,
        bytes=checked.bytes,
        sha256=sha256,
        mapped=checked.archive.data,
    )


def from_exported(exported: ExportedProgram, name: str = "program") -> Program:
    """A `Program` of a program in memory; `exported` itself stays as it is."""
    register_operators()
    return Program(exported=plain(exported, name), name=name, bytes=None)


def widened(program: Program) -> Program:
    """The program in float32 where it computes in half precision, else itself. LoweringError."""
    wide = in_float32(program.exported)
    return program if wide is program.exported else replace(program, exported=wide, narrow=program.exported)


def _trusted(checked: Checked) -> ExportedProgram:
    """What torch itself loads, code included."""
    exported = torch.export.load(checked.archive.stream())
    exported._guards_code = []  # source text that ExportedProgram.module() would execute  # noqa: SLF001
    return exported


def _deserialized(checked: Checked, model: dict[str, Any]) -> ExportedProgram:
    """The program of checked data, by the part of ``torch.export.load`` that builds it."""
    inputs = unpickled(checked.archive, INPUTS) if INPUTS in checked.archive else None
    return ExportedProgramDeserializer().deserialize(
        _dict_to_dataclass(schema.ExportedProgram, model),  # type: ignore[no-untyped-call]
        tensors(checked.archive, checked.weights),
        tensors(checked.archive, checked.constants),
        inputs,
    )


@contextlib.contextmanager
def _reported(checked: Checked) -> Iterator[None]:
    """Turn whatever torch raises on a damaged program into one error that names the file."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # upstream raises anything
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        unknown = next(_unregistered(checked), None)
        if unknown is not None:
            raise InputError(
                f"{checked.name}: nothing has registered the operator {unknown!r}", hint=IMPORT_HINT
            ) from error
        raise InputError(
            f"{checked.name}: the program cannot be rebuilt: {spelled(cause)}",
            hint=f"export the program again with torch {torch.__version__.split('+')[0]}",
        ) from error


def _unregistered(checked: Checked) -> Iterator[str]:
    """Operators that a program names and nothing has registered, as torch writes them."""
    for namespace, name, overload in _OPERATOR.findall(bytes(checked.archive.read(MODEL))):
        packet = getattr(getattr(torch.ops, namespace.decode()), name.decode(), None)
        if not hasattr(packet, overload.decode()) and namespace != b"higher_order":
            yield f"torch.ops.{namespace.decode()}.{name.decode()}.{overload.decode()}"


_TYPE_ASSERTION = torch.ops.aten._assert_tensor_metadata.default  # noqa: SLF001 - the operator's name
_UNWRAP = "unwrap tensor subclasses before export (torchao.utils.unwrap_tensor_subclass)"
_DECOMPOSES = "torch itself cannot decompose the program: exported.run_decompositions() shows where"


def plain(exported: ExportedProgram, name: str) -> ExportedProgram:
    """Unwrap tensor subclasses, functionalize, and give each constant its own contiguous storage.

    What a conversion asserts of a tensor's type is left out: tracing has settled it.

    Raises LoweringError where the program cannot be decomposed.
    """
    frozen = _frozen(written_as_buffers(spelled_for_code(exported), name))
    try:
        unwrapped = frozen.run_decompositions(dict(decompositions()))
    except Exception as error:  # tracing runs the user's operators
        raise LoweringError(
            f"{name}: run_decompositions failed: {spelled(error)}",
            hint=_UNWRAP
            if any(map(is_traceable_wrapper_subclass, exported.state_dict.values()))
            else _DECOMPOSES,
        ) from error
    for assertion in unwrapped.graph.find_nodes(op="call_function", target=_TYPE_ASSERTION):
        unwrapped.graph.erase_node(assertion)
    unwrapped.graph_module.recompile()
    own: dict[tuple[object, ...], torch.Tensor] = {}
    for constants in (unwrapped.state_dict, unwrapped.constants):
        for key, value in constants.items():
            if isinstance(value, torch.Tensor):
                constants[key] = _own(value, own)
    return unwrapped  # type: ignore[no-any-return]


def _frozen(exported: ExportedProgram) -> ExportedProgram:
    """The same program with parameters that need no gradient: what they write to a buffer could not be traced else.

    Its bounds are those of symbols: those of `2*s39`, of an even dimension, follow, and torch cannot trace with them. Its
    constants are in a mapping of its own, which decomposing would share.
    """
    shapes = _get_shape_env_from_gm(exported.graph_module)
    for expression in [] if shapes is None else [of for of in shapes.var_to_range if not of.is_Symbol]:
        del shapes.var_to_range[expression]
    return with_parts(
        exported,
        state_dict={key: _without_gradient(value) for key, value in exported.state_dict.items()},
        constants=dict(exported.constants),
        range_constraints={of: r for of, r in exported.range_constraints.items() if of.is_Symbol},
    )


def _without_gradient(value: torch.Tensor) -> torch.Tensor:
    if isinstance(value, torch.nn.Parameter):
        return torch.nn.Parameter(value.detach(), requires_grad=False)
    return value


def _own(tensor: torch.Tensor, seen: dict[tuple[object, ...], torch.Tensor]) -> torch.Tensor:
    """`tensor` as a contiguous tensor over a storage of just its size; the same view gives the same tensor."""
    key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
    own = owned(tensor)
    if own is tensor:
        return tensor
    copy = seen.setdefault(key, own)
    if not isinstance(tensor, torch.nn.Parameter):
        return copy
    return torch.nn.Parameter(copy, requires_grad=False)
