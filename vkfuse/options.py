"""Choices of a run. Imports no torch, so that the command line offers them without it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from vkfuse.pte.runtimes import DEFAULT

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


@dataclass(frozen=True, slots=True, kw_only=True)
class VulkanOptions:
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
class Options:
    """Choices of a run. `baseline` is a BaselineChoice or the path of a .pte; `verify` runs the written bytes."""

    runtime: str = DEFAULT
    baseline: BaselineChoice | Path = BaselineChoice.FOLDED
    vulkan: VulkanOptions = field(default_factory=VulkanOptions)
    verify: bool = True
    allow_pickle: bool = False
    verbose: bool = False
