"""What a SPIR-V module asks of a device, read from its instructions (SPIR-V specification, section 3)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from vkfuse.errors import FormatError
from vkfuse.glsl.variants import BindingKind

MAGIC = 0x07230203
HEADER_WORDS = 5


class Op(IntEnum):
    """The instructions that matter here."""

    EXTENSION = 10
    CAPABILITY = 17
    TYPE_SAMPLED_IMAGE = 27
    TYPE_POINTER = 32
    VARIABLE = 59
    DECORATE = 71


class Decoration(IntEnum):
    """The decorations that matter here."""

    BUFFER_BLOCK = 3
    BINDING = 33


class StorageClass(IntEnum):
    """Storage classes of resources."""

    UNIFORM_CONSTANT = 0
    STORAGE_BUFFER = 12


CAPABILITIES = {1: "Shader", 9: "Float16", 50: "ImageQuery", 4433: "StorageBuffer16BitAccess"}
FEATURES = {"Float16": "shaderFloat16", "StorageBuffer16BitAccess": "storageBuffer16BitAccess"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reflection:
    """Version, capabilities and extensions by name, and the type of each binding in order."""

    version: str
    capabilities: tuple[str, ...]
    extensions: tuple[str, ...]
    bindings: tuple[BindingKind, ...]

    @property
    def features(self) -> tuple[str, ...]:
        """Vulkan features that the capabilities need; what every device has is left out."""
        return tuple(FEATURES[name] for name in self.capabilities if name in FEATURES)


@dataclass(slots=True)
class _Module:
    """Facts by id, collected in one pass."""

    capabilities: list[str] = field(default_factory=list)
    extensions: list[str] = field(default_factory=list)
    bindings: dict[int, int] = field(default_factory=dict)
    buffer_blocks: set[int] = field(default_factory=set)
    sampled: set[int] = field(default_factory=set)
    pointees: dict[int, int] = field(default_factory=dict)
    variables: dict[int, tuple[int, int]] = field(default_factory=dict)

    def kind(self, variable: int) -> BindingKind:
        """The descriptor type of a variable."""
        pointer, storage = self.variables[variable]
        pointee = self.pointees[pointer]
        if storage == StorageClass.UNIFORM_CONSTANT:
            return BindingKind.SAMPLER if pointee in self.sampled else BindingKind.STORAGE_IMAGE
        if storage == StorageClass.STORAGE_BUFFER or pointee in self.buffer_blocks:
            return BindingKind.STORAGE_BUFFER
        return BindingKind.UNIFORM_BUFFER


def reflect(spirv: bytes) -> Reflection:
    """What `spirv` needs. FormatError when it is not a SPIR-V module."""
    words = _words(spirv)
    module = _Module()
    for operation, operands in _instructions(words):
        _collect(module, operation, operands)
    try:
        kinds = {binding: module.kind(variable) for variable, binding in module.bindings.items()}
    except KeyError as error:
        raise FormatError(f"binding of an id that is no variable: {error}", field="spirv") from error
    return Reflection(
        version=f"{words[1] >> 16 & 0xFF}.{words[1] >> 8 & 0xFF}",
        capabilities=tuple(module.capabilities),
        extensions=tuple(module.extensions),
        bindings=tuple(kinds[binding] for binding in sorted(kinds)),
    )


def _words(spirv: bytes) -> tuple[int, ...]:
    if len(spirv) % 4 or len(spirv) < 4 * HEADER_WORDS:
        raise FormatError(f"{len(spirv)} bytes are no SPIR-V module", field="spirv")
    words = struct.unpack(f"<{len(spirv) // 4}I", spirv)
    if words[0] != MAGIC:
        raise FormatError(f"magic {words[0]:#010x} instead of {MAGIC:#010x}", field="spirv[0]")
    return words


def _instructions(words: tuple[int, ...]) -> Iterator[tuple[int, tuple[int, ...]]]:
    at = HEADER_WORDS
    while at < len(words):
        length, operation = words[at] >> 16, words[at] & 0xFFFF
        if length == 0 or at + length > len(words):
            raise FormatError(f"an instruction of {length} words", field=f"spirv[{at}]")
        yield operation, words[at + 1 : at + length]
        at += length


def _text(operands: tuple[int, ...]) -> str:
    """A literal string: UTF-8 in words, padded with zeros."""
    try:
        return struct.pack(f"<{len(operands)}I", *operands).rstrip(b"\0").decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"an extension's name is no text: {error}", field="spirv") from error


def _collect(module: _Module, operation: int, operands: tuple[int, ...]) -> None:
    match operation, operands:
        case Op.CAPABILITY, (capability,):
            module.capabilities.append(CAPABILITIES.get(capability, str(capability)))
        case Op.EXTENSION, _:
            module.extensions.append(_text(operands))
        case Op.DECORATE, (target, Decoration.BINDING, binding):
            module.bindings[target] = binding
        case Op.DECORATE, (target, Decoration.BUFFER_BLOCK):
            module.buffer_blocks.add(target)
        case Op.TYPE_SAMPLED_IMAGE, (result, _):
            module.sampled.add(result)
        case Op.TYPE_POINTER, (result, _, pointee):
            module.pointees[result] = pointee
        case Op.VARIABLE, (pointer, result, storage, *_):
            module.variables[result] = (pointer, storage)
        case _:
            pass
