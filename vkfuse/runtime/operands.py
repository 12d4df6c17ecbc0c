"""What is known of one operator call: its arguments by name, its outputs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Final, TypeAlias

from vkfuse.pte.enums import VkDataType, VkMemoryLayout, VkStorageType
from vkfuse.runtime.device import COMMON, Device

ANY_STORAGE: Final = frozenset({VkStorageType.BUFFER, VkStorageType.TEXTURE_3D})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A tensor: `dims` are the greatest sizes, `dynamic` the axes along which it may be smaller.

    `storages` are those that it may have; `layout` is DEFAULT_LAYOUT where it is not known. `order` is the order of
    dimensions, empty for the default one. `staging` is the type outside of the delegate, UNSET for the tensor's own.
    """

    dims: tuple[int, ...]
    dtype: VkDataType
    constant: bool = False
    storages: frozenset[VkStorageType] = ANY_STORAGE
    layout: VkMemoryLayout = VkMemoryLayout.DEFAULT_LAYOUT
    dynamic: frozenset[int] = frozenset()
    order: tuple[int, ...] = ()
    staging: VkDataType = VkDataType.UNSET

    @property
    def storage(self) -> VkStorageType:
        """The storage, DEFAULT_STORAGE while it is open."""
        return next(iter(self.storages)) if len(self.storages) == 1 else VkStorageType.DEFAULT_STORAGE

    @property
    def in_buffer(self) -> bool:
        """Whether the tensor is surely stored in a buffer."""
        return self.storage is VkStorageType.BUFFER

    @property
    def in_texture(self) -> bool:
        """Whether the tensor is surely stored in a texture."""
        return self.storage is VkStorageType.TEXTURE_3D

    @property
    def rows(self) -> int:
        """Product of all sizes but the last: the rows of a matrix of any rank."""
        return prod(self.dims[:-1])

    @property
    def matrices(self) -> int:
        """Product of all sizes but the last two."""
        return prod(self.dims[:-2])

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return prod(self.dims) * self.dtype.bytes

    def size(self, axis: int) -> int:
        """Size along an axis counted from the end, 1 beyond the first."""
        return self.dims[axis] if -axis <= len(self.dims) else 1


@dataclass(frozen=True, slots=True)
class Symbol:
    """An integer that is computed when the program runs."""


Value: TypeAlias = Tensor | Symbol | int | float | bool | str | tuple["Value", ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operands:
    """The operands of a call of `operator`: `values` by argument name, `output` a tensor or a list of them."""

    operator: str
    values: Mapping[str, Value]
    output: Value = None
    device: Device = COMMON

    def value(self, name: str) -> Value:
        """Return an argument, None where there is none."""
        return self.values.get(name)

    def tensor(self, name: str) -> Tensor | None:
        """Return an argument that is a tensor."""
        value = self.values.get(name)
        return value if isinstance(value, Tensor) else None

    def integer(self, name: str) -> int | None:
        """Return an argument that is an integer."""
        value = self.values.get(name)
        return value if type(value) is int else None

    def flag(self, name: str) -> bool | None:
        """Return an argument that is a boolean."""
        value = self.values.get(name)
        return value if isinstance(value, bool) else None

    def integers(self, name: str) -> tuple[int, ...] | None:
        """Return an argument that is a list of integers."""
        value = self.values.get(name)
        if not isinstance(value, tuple):
            return None
        items = tuple(item for item in value if type(item) is int)
        return items if len(items) == len(value) else None

    def members(self, name: str) -> tuple[Value, ...]:
        """Return the members of an argument that is a list, else nothing."""
        value = self.values.get(name)
        return value if isinstance(value, tuple) else ()

    @property
    def out(self) -> Tensor | None:
        """The output, the first where there are several."""
        first = self.output[0] if isinstance(self.output, tuple) and self.output else self.output
        return first if isinstance(first, Tensor) else None

    @property
    def outs(self) -> tuple[Tensor, ...]:
        """The outputs that are tensors."""
        several = self.output if isinstance(self.output, tuple) else (self.output,)
        return tuple(value for value in several if isinstance(value, Tensor))

    def tensors(self) -> Iterator[Tensor]:
        """Yield the arguments that are tensors, and the first output."""
        yield from (value for value in self.values.values() if isinstance(value, Tensor))
        if self.out:
            yield self.out

    def decided(self) -> Iterator["Operands"]:
        """Yield the call for each storage that it may have: all open tensors in buffers, or all in textures."""
        everything = (*self.values.values(), self.output)
        if all(_is_decided(value) for value in everything):
            yield self
            return
        for storage in sorted(ANY_STORAGE):
            yield replace(
                self,
                values={name: _stored(value, storage) for name, value in self.values.items()},
                output=_stored(self.output, storage),
            )


def _is_decided(value: Value) -> bool:
    if isinstance(value, tuple):
        return all(_is_decided(member) for member in value)
    return not isinstance(value, Tensor) or len(value.storages) == 1


def _stored(value: Value, storage: VkStorageType) -> Value:
    if isinstance(value, tuple):
        return tuple(_stored(member, storage) for member in value)
    if isinstance(value, Tensor) and storage in value.storages:
        return replace(value, storages=frozenset({storage}))
    return value
