"""Choices of a run. Imports no torch, so that the command line offers them without it."""

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

from vkfuse.errors import VkfuseError
from vkfuse.runtime.versions import default_runtime

Progress = Callable[[str], None]


class BaselineChoice(StrEnum):
    """What "before" is, where it is no file."""

    FOLDED = "folded"
    STOCK = "stock"
    NONE = "none"


class Storage(StrEnum):
    """How a delegate stores its tensors."""

    TEXTURE = "texture"
    BUFFER = "buffer"


class LookupLayout(StrEnum):
    """How 4-bit tables that no linear reads are stored; docs/shader.md draws both."""

    FLAT = "flat"
    LINEAR = "linear"


DEFAULT_LAYOUT: Final = LookupLayout.LINEAR  # needs no feature of the device


class _Checked:
    """A dataclass whose fields are of their types; a path or the word of a choice may be given as text."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            object.__setattr__(self, name, _of_kind(getattr(self, name), kind, name))


def _of_kind(value: object, kind: Any, name: str) -> object:
    """`value` as a `kind`. Raises VkfuseError."""
    kinds = get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if type(value) in kinds or (isinstance(value, kinds) and not isinstance(value, bool)):
        return value
    if isinstance(value, str):
        choices = [each for each in kinds if issubclass(each, StrEnum)]
        found = next((choice(value) for choice in choices if value in {*choice}), None)
        if found is not None or Path in kinds:
            return found or Path(value)
    words = [str(word) for each in kinds if issubclass(each, StrEnum) for word in each]
    names = " or ".join("None" if each is types.NoneType else each.__name__ for each in kinds)
    hint = f"one of {', '.join(words)}" if words else f"give {names}"
    raise VkfuseError(f"the option {name} is {value!r}", hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class VulkanOptions(_Checked):
    """Choices of the Vulkan backend.

    `fp16` computes all float arithmetic in half precision (lossy). `small_textures` keeps to 2048 texels a side, which
    every GPU has, in place of 16384. A flat `lookup_layout` is read faster, a linear one needs no feature of the GPU.
    `embed_shader` stores vkfuse's own shaders for the lookups in the file, for runtimes that take them from there.
    """

    fp16: bool = False
    storage: Storage = Storage.TEXTURE
    small_textures: bool = False
    lookup_layout: LookupLayout = DEFAULT_LAYOUT
    embed_shader: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(_Checked):
    """Choices of a run. `baseline` is a BaselineChoice or the path of a .pte; `verify` runs the written bytes.

    `max_memory` bounds, in bytes, what constants may evaluate to; None: a multiple of the program's size. A choice may be
    given by its word. Raises VkfuseError for a value of another type.
    """

    runtime: str = field(default_factory=default_runtime)
    baseline: BaselineChoice | Path = BaselineChoice.FOLDED
    vulkan: VulkanOptions = field(default_factory=VulkanOptions)
    verify: bool = True
    allow_pickle: bool = False
    verbose: bool = False
    max_memory: int | None = None

    def changed(self, changes: Mapping[str, Any]) -> "Options":
        """These options but for `changes`, fields of Options or of VulkanOptions. Raises VkfuseError for any other."""
        of_vulkan = {each.name for each in fields(VulkanOptions)}
        known = {each.name for each in fields(Options)} | of_vulkan
        unknown = next((name for name in changes if name not in known), None)
        if unknown is not None:
            raise VkfuseError(f"there is no option {unknown!r}", hint=f"there are {', '.join(sorted(known))}")
        own = {name: value for name, value in changes.items() if name not in of_vulkan}
        made = replace(self, **own)
        inner = {name: value for name, value in changes.items() if name in of_vulkan}
        return replace(made, vulkan=replace(made.vulkan, **inner)) if inner else made
