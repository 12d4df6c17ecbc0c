"""A .pte file as read: every field of the program that execution needs, typed, and where its bytes stand.

Indices are checked by the reader: `args`, `ids`, `inputs` and `outputs` index `Method.values`, `op_index`
`Method.operators`, `delegate_index` `Method.delegates`. Bytes are read-only views of the mapped file.
Source: schema/program.fbs of ExecuTorch 1.5.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from math import prod
from types import MappingProxyType
from typing import Concatenate, ParamSpec, TypeVar, cast

from vkfuse.pte.enums import DataLocation, DeviceType, ScalarType, ShapeDynamism
from vkfuse.pte.values import Bool, BoolList, Double, DoubleList, Extent, Int, String


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """A planned place: byte `offset` in memory `memory_id` (counted from 1, as stored)."""

    memory_id: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A tensor. `sizes` is an upper bound where the shape is dynamic.

    `data` holds a constant's bytes, or the initial state of a planned tensor; None for activations and for a
    constant that is `external` and was not supplied.
    """

    scalar_type: ScalarType
    sizes: tuple[int, ...]
    dim_order: tuple[int, ...]
    dynamism: ShapeDynamism = ShapeDynamism.STATIC
    data_buffer_idx: int
    allocation: Allocation | None = None
    name: str = ""
    external: bool = False
    device: DeviceType = DeviceType.CPU
    device_index: int = 0
    requires_grad: bool = False
    layout: int = 0
    initial_segment: int = 0  # which of the file's mutable segments holds its initial state
    data: memoryview | None = field(default=None, repr=False)
    data_at: Extent | None = None  # in the file; None for external data

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return prod(self.sizes) * self.scalar_type.bytes

    @property
    def constant(self) -> bool:
        """Whether the tensor's bytes never change."""
        return self.allocation is None and (self.data_buffer_idx > 0 or self.external)


@dataclass(frozen=True, slots=True)
class BoxedIntList:
    """A list of integers, each the index of an Int value (so that some may be computed)."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorList:
    """A list of tensors, by the indices of their values."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OptionalTensorList:
    """A list of optional tensors: -1, or the index of a tensor or of a None."""

    ids: tuple[int, ...]


Value = (
    Int
    | Bool
    | Double
    | Tensor
    | String
    | BoxedIntList
    | DoubleList
    | BoolList
    | TensorList
    | OptionalTensorList
    | None
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """A CPU kernel's name."""

    name: str
    overload: str

    @property
    def full_name(self) -> str:
        """The key of the kernel registry (`aten::add.out`)."""
        return f"{self.name}.{self.overload}" if self.overload else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCall:
    """Run a CPU kernel; outputs are the last arguments."""

    op_index: int
    args: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegateCall:
    """Run a delegate: its inputs, then its outputs."""

    delegate_index: int
    args: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveCall:
    """Copy a value into another."""

    move_from: int
    move_to: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JumpFalseCall:
    """Continue at an instruction of the method when the value is false; their number is the end."""

    cond_value_index: int
    destination_instruction: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeCall:
    """Free the data of an unplanned tensor."""

    value_index: int


Instruction = KernelCall | DelegateCall | MoveCall | JumpFalseCall | FreeCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A line of the Python program that an instruction comes from."""

    filename: str
    lineno: int
    name: str
    context: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NonConstBufferDevice:
    """Where one of `Method.non_const_buffer_sizes` is allocated."""

    buffer_idx: int
    device: DeviceType
    device_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileSpec:
    """An option that a backend was compiled with."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegate:
    """A compiled subgraph: the backend's `id`, its options, and its blob."""

    id: str
    compile_specs: tuple[CompileSpec, ...]
    location: DataLocation
    processed: memoryview = field(repr=False)
    processed_at: Extent


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One entry point (execution plan). Chains are joined, their jumps counted from the first instruction.

    `frames` has an entry for each instruction, or is None, as are `buffer_devices`, where the file has none.
    """

    name: str
    values: tuple[Value, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    instructions: tuple[Instruction, ...]
    operators: tuple[Operator, ...]
    delegates: tuple[Delegate, ...]
    non_const_buffer_sizes: tuple[int, ...]
    encoded_inputs: str
    encoded_outputs: str
    chain_inputs: tuple[int, ...] = ()
    chain_outputs: tuple[int, ...] = ()
    frames: tuple[tuple[Frame, ...], ...] | None = None
    buffer_devices: tuple[NonConstBufferDevice, ...] | None = None

    @property
    def input_values(self) -> tuple[Value, ...]:
        """What it says of its inputs."""
        return tuple(self.values[index] for index in self.inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The `eh00` block: `length` bytes at offset 8; `segment_data_size` is 0 in files older than 1.0."""

    length: int
    program_size: int
    segment_base: int
    segment_data_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedData:
    """A blob by name; several names may stand for one segment."""

    key: str
    segment_index: int
    data: memoryview = field(repr=False)
    data_at: Extent


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsegmentOffsets:
    """Where tensors start inside a segment; entry 0 is a placeholder."""

    segment_index: int
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PteFile:
    """A .pte file; the mapping lives as long as any view of it.

    `unread` is the path of a table with fields that the schema does not know, which a written file would lack.
    """

    path: str
    data: memoryview = field(repr=False)
    header: Header | None
    version: int  # of the program's schema
    methods: tuple[Method, ...]
    program_at: Extent
    segments: tuple[Extent, ...]  # absolute in the file
    constant_segment: SubsegmentOffsets | None
    mutable_segments: tuple[SubsegmentOffsets, ...]
    named: tuple[NamedData, ...]
    inline_delegates: tuple[Extent, ...]
    inline_constants: tuple[Extent, ...]
    external: Mapping[str, memoryview] = field(repr=False)
    unread: str = ""
    derived: dict[Hashable, object] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.data)

    @property
    def named_data(self) -> Mapping[str, memoryview]:
        """Named data by key: the file's own, and the external."""
        return MappingProxyType({**self.external, **{entry.key: entry.data for entry in self.named}})


_More = ParamSpec("_More")
_Made = TypeVar("_Made")


def once_a_file(
    make: Callable[Concatenate[PteFile, _More], _Made],
) -> Callable[Concatenate[PteFile, _More], _Made]:
    """Keep what `make` returns of a file, for each set of further arguments, as long as the file."""

    @wraps(make)
    def made(pte: PteFile, /, *args: _More.args, **keywords: _More.kwargs) -> _Made:
        key = (make, args, *keywords.items())
        if key not in pte.derived:
            pte.derived[key] = make(pte, *args, **keywords)
        return cast("_Made", pte.derived[key])

    return made
