"""An unpickler for tensors that changes nothing which was there before.

Classes and functions are not written to, no storage grows, and no value is larger than its pickle makes it look. A
pickle's opcodes can set attributes of whatever they name (`BUILD`), also of torch's own functions; `Tensor.set_` grows a
storage that is too small, with whatever stood in that memory; and ten tuples of two are a thousand when they are shared.
"""

import dataclasses
import io
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final

import torch
from torch import _utils

from vkfuse.errors import InputError, UnsafePickleError
from vkfuse.program.names import is_allowed_class
from vkfuse.program.pickles import HINT

_AGAIN: Final = "export the program again"
_LARGEST: Final = 10_000  # values in a structure, however often one is shared
_CONTAINERS: Final = (tuple, list, dict, set, frozenset)

StorageOf = Callable[[str, str], torch.UntypedStorage]


class TensorUnpickler(pickle._Unpickler):  # noqa: SLF001 - only the one in Python can be told what an opcode may do
    """Builds what `torch.save` wrote; `storage(key, location)` gives the bytes of a tensor, `where` is for errors.

    A second line behind `check_pickle` for names, the first one for what is done with them. Raises UnsafePickleError.
    """

    def __init__(self, data: memoryview, storage: StorageOf, where: str) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._storage, self._where = storage, where
        self._makers = _makers(where)
        self._leaves: dict[int, tuple[Any, int]] = {}  # a tuple, kept so that its id stays its own

    def find_class(self, module: str, name: str) -> Any:
        """The class or function `module.name`, for a kind of storage its dtype. UnsafePickleError where not allowed."""
        qualified = f"{module}.{name}"
        if not is_allowed_class(qualified):
            raise UnsafePickleError(
                f"{self._where}: a pickle wants to import {qualified!r}, which is not allowed", hint=HINT
            )
        if qualified == "torch.Tensor":
            return _MARKED
        if name.endswith("Storage"):
            return _StorageKind(name)
        return self._makers.get(qualified) or super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        """The storage that `("storage", kind, key, location, elements)` stands for (torch/serialization.py, `_load`)."""
        _, kind, key, location, _ = pid
        if not isinstance(kind, _StorageKind) or not isinstance(key, str) or not isinstance(location, str):
            raise InputError(f"{self._where}: a storage of no kind", hint=_AGAIN)
        return torch.storage.TypedStorage(  # type: ignore[no-untyped-call]
            wrap_storage=self._storage(key, location), dtype=kind.dtype, _internal=True
        )

    def load_build(self) -> None:
        """Fields of a data class, as `pickle` sets them; nothing else has a state."""
        state, made = self.stack.pop(), self.stack[-1]  # type: ignore[attr-defined]
        if isinstance(made, type) or not dataclasses.is_dataclass(made):
            raise UnsafePickleError(f"{self._where}: a pickle sets attributes of {_kind(made)}", hint=HINT)
        fields = {field.name for field in dataclasses.fields(made)}
        if type(state) is not dict or not fields.issuperset(state):
            raise UnsafePickleError(f"{self._where}: a pickle sets no fields of {_kind(made)}", hint=HINT)
        _check_passive(state.values(), self._where)
        vars(made).update(state)

    def load_tuple(self) -> None:
        """A tuple of what stands above the mark."""
        self._push(tuple(self.pop_mark()))  # type: ignore[attr-defined]

    def _load_tuple_of(self, length: int) -> None:
        items = tuple(self.stack[-length:])  # type: ignore[attr-defined]
        del self.stack[-length:]  # type: ignore[attr-defined]
        self._push(items)

    def _push(self, made: tuple[Any, ...]) -> None:
        """Put a tuple on the stack, with how many values it is in all: hashing or comparing it visits each."""
        leaves = 1 + sum(self._leaves.get(id(item), (None, 1))[1] for item in made)
        if leaves > _LARGEST:
            raise InputError(f"{self._where}: a pickle holds tuples of {leaves:,} values", hint=_AGAIN)
        self._leaves[id(made)] = made, leaves
        self.append(made)  # type: ignore[attr-defined]

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        **pickle._Unpickler.dispatch,  # noqa: SLF001 - see above
        pickle.BUILD[0]: load_build,
        pickle.TUPLE[0]: load_tuple,
        pickle.TUPLE1[0]: lambda self: self._load_tuple_of(1),
        pickle.TUPLE2[0]: lambda self: self._load_tuple_of(2),
        pickle.TUPLE3[0]: lambda self: self._load_tuple_of(3),
    }


class _StorageKind:
    """What a pickle calls `torch.FloatStorage`: a dtype, and nothing that can be called."""

    def __init__(self, name: str) -> None:
        known: Mapping[str, torch.dtype] = torch.storage._storage_type_to_dtype_map()  # noqa: SLF001 - torch has no public name for it
        self.dtype = known.get(name, torch.uint8)


_MARKED: Final = (
    object()
)  # the class of a tensor with attributes; not torch.Tensor, which allocates what it is asked for


def check_small(value: Any, where: str) -> None:
    """Raise InputError where a structure has more values than a program takes, one within itself included."""
    if sum(1 for _ in _values(value)) > _LARGEST:
        raise InputError(f"{where}: a structure of more than {_LARGEST:,} values", hint=_AGAIN)


def _values(value: Any) -> Iterator[Any]:
    """Everything in a structure, but no more of it than may be there."""
    stack, seen = [value], 0
    while stack and seen <= _LARGEST:
        seen += 1
        item = stack.pop()
        yield item
        if isinstance(item, _CONTAINERS):
            stack.extend([*item, *item.values()] if isinstance(item, dict) else item)


def _check_passive(values: Any, where: str) -> None:
    """Raise UnsafePickleError where a state holds something to call, InputError where it is too large."""
    values = list(values)
    check_small(values, where)
    if any(callable(value) for value in _values(values)):
        raise UnsafePickleError(f"{where}: a pickle stores something to call", hint=HINT)


def _kind(value: object) -> str:
    return f"{value.__name__!r}" if isinstance(value, type) else f"a {type(value).__name__!r}"


def _makers(where: str) -> dict[str, Callable[..., torch.Tensor]]:
    """What a pickle calls in place of torch's functions of these names."""
    makers: dict[str, Callable[..., torch.Tensor]] = {
        f"torch._utils.{name}": partial(make, where)
        for name, make in (
            ("_rebuild_parameter", _parameter),
            ("_rebuild_tensor", _tensor),
            ("_rebuild_tensor_v2", _tensor_v2),
            ("_rebuild_tensor_v3", _tensor_v3),
            ("_rebuild_wrapper_subclass", _wrapper),
        )
    }
    return makers | {"torch._tensor._rebuild_from_type_v2": partial(_subclass, where, tuple(makers.values()))}


def _tensor(
    where: str, storage: Any, offset: int, size: Sequence[int], stride: Sequence[int]
) -> torch.Tensor:
    _check_stored(where, storage, storage.dtype, offset, size, stride)
    return _utils._rebuild_tensor(storage, offset, size, stride)  # type: ignore[no-any-return,no-untyped-call]  # noqa: SLF001 - what pickles call


def _tensor_v2(
    where: str, storage: Any, offset: int, size: Sequence[int], stride: Sequence[int], *rest: Any
) -> torch.Tensor:
    _check_stored(where, storage, storage.dtype, offset, size, stride)
    return _utils._rebuild_tensor_v2(storage, offset, size, stride, *rest)  # type: ignore[no-any-return,no-untyped-call]  # noqa: SLF001 - what pickles call


def _tensor_v3(
    where: str,
    storage: Any,
    offset: int,
    size: Sequence[int],
    stride: Sequence[int],
    requires_grad: bool,
    hooks: Any,
    dtype: torch.dtype,
    *rest: Any,
) -> torch.Tensor:
    _check_stored(where, storage, dtype, offset, size, stride)
    return _utils._rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, *rest)  # type: ignore[no-any-return,no-untyped-call]  # noqa: SLF001 - what pickles call


def _check_stored(
    where: str, storage: Any, dtype: torch.dtype, offset: int, size: Sequence[int], stride: Sequence[int]
) -> None:
    if not isinstance(storage, torch.storage.TypedStorage):
        raise InputError(f"{where}: no storage", hint=_AGAIN)
    stored = storage._untyped_storage.nbytes() // dtype.itemsize  # noqa: SLF001 - the public one warns
    check_inside(where, stored, offset, size, stride)


def check_inside(where: str, stored: int, offset: int, size: Sequence[int], stride: Sequence[int]) -> None:
    """Raise InputError where a tensor would reach beyond its `stored` values, or before them.

    Torch makes a pickled tensor's storage larger then.
    """
    if any(type(number) is not int or number < 0 for number in (offset, *size, *stride)):
        raise InputError(f"{where}: sizes that are none", hint=_AGAIN)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= stored:
        raise InputError(f"{where}: {stored:,} values are stored, {last + 1:,} are declared", hint=_AGAIN)


def _parameter(where: str, data: Any, *rest: Any) -> torch.Tensor:
    if not isinstance(data, torch.Tensor):
        raise InputError(f"{where}: a parameter of no tensor", hint=_AGAIN)
    return _utils._rebuild_parameter(data, *rest)  # type: ignore[no-any-return,no-untyped-call]  # noqa: SLF001 - what pickles call


def _wrapper(where: str, kind: Any, *rest: Any) -> torch.Tensor:
    """A tensor subclass around others, without data of its own."""
    if not _is_tensor_class(kind) or len(rest) != 7 or str(rest[5]) != "cpu":
        raise InputError(f"{where}: no subclass on the CPU", hint="move the program to the CPU before export")
    return _utils._rebuild_wrapper_subclass(kind, *rest)  # type: ignore[no-any-return,no-untyped-call]  # noqa: SLF001 - what pickles call


def _subclass(
    where: str, makers: tuple[Any, ...], maker: Any, kind: Any, args: Any, state: Any
) -> torch.Tensor:
    """A tensor of a class with its attributes: data under names that its class does not have.

    Those of a plain tensor are marks of torch.export's (`_specialize_on`), which nothing reads any more.
    """
    attributes, *slots = state if isinstance(state, tuple) else (state,)
    if maker in makers and kind is _MARKED:
        return maker(*args)  # type: ignore[no-any-return]
    if maker not in makers or not _is_tensor_class(kind) or any(slots):
        raise UnsafePickleError(f"{where}: no subclass that torch.save writes", hint=HINT)
    attributes = attributes or {}
    if type(attributes) is not dict or any(not _is_free(kind, name) for name in attributes):
        raise UnsafePickleError(f"{where}: attributes of a {kind.__name__!r} that are none", hint=HINT)
    _check_passive(attributes.values(), where)
    return torch._tensor._rebuild_from_type_v2(maker, kind, args, attributes)  # type: ignore[no-any-return,no-untyped-call]  # noqa: SLF001 - what pickles call


def _is_tensor_class(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, torch.Tensor)


def _is_free(kind: type, name: Any) -> bool:
    """Whether `name` may be an attribute of a tensor without standing in front of what its class has."""
    return isinstance(name, str) and name.isidentifier() and not hasattr(kind, name)
