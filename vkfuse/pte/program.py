"""Methods of the program flatbuffer: values, instructions, operators, delegates.

Source: schema/program.fbs and runtime/executor/method.cpp of ExecuTorch 1.5.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, Final, get_args

from vkfuse.pte.enums import DataLocation, DeviceType
from vkfuse.pte.flatbuffer import FlatTable
from vkfuse.pte.layout import INSTRUCTIONS, KERNEL_TYPES
from vkfuse.pte.model import (
    BoxedIntList,
    CompileSpec,
    Delegate,
    Frame,
    Instruction,
    JumpFalseCall,
    Method,
    NonConstBufferDevice,
    Operator,
    OptionalTensorList,
    TensorList,
    Value,
)
from vkfuse.pte.records import read_record, read_shared
from vkfuse.pte.segments import Blobs, Bytes, cut, segment_of
from vkfuse.pte.tensor import read_tensor

_ID_LISTS: Final[dict[str, type[BoxedIntList | TensorList | OptionalTensorList]]] = {
    "IntList": BoxedIntList,
    "TensorList": TensorList,
    "OptionalTensorList": OptionalTensorList,
}
_INSTRUCTIONS: Final[Mapping[str, type[Instruction]]] = {of.__name__: of for of in get_args(Instruction)}


def read_method(plan: FlatTable, blobs: Blobs) -> Method:
    """Read one execution plan."""
    values = _values(plan, blobs)
    operators = tuple(_operator(table) for table in plan.children("operators"))
    delegates = tuple(_delegate(table, blobs) for table in plan.children("delegates"))
    meta = plan.child("container_meta_type")
    chains = tuple(plan.children("chains"))
    return Method(
        name=plan.name("name"),
        values=values,
        inputs=plan.indices("inputs", len(values)),
        outputs=plan.indices("outputs", len(values)),
        instructions=_instructions(chains, len(values), len(operators), len(delegates)),
        operators=operators,
        delegates=delegates,
        non_const_buffer_sizes=plan.integers("non_const_buffer_sizes"),
        encoded_inputs=meta.text("encoded_inp_str") if meta else "",
        encoded_outputs=meta.text("encoded_out_str") if meta else "",
        chain_inputs=tuple(index for of in chains for index in of.indices("inputs", len(values))),
        chain_outputs=tuple(index for of in chains for index in of.indices("outputs", len(values))),
        frames=_frames(chains),
        buffer_devices=_buffer_devices(plan),
    )


def _frames(chains: tuple[FlatTable, ...]) -> tuple[tuple[Frame, ...], ...] | None:
    """Read where each instruction comes from, if any chain says so."""
    if not any(chain.has("stacktrace") for chain in chains):
        return None
    return tuple(
        tuple(read_record(Frame, table) for table in frames.children("items"))
        for chain in chains
        for frames in chain.children("stacktrace")
    )


def _buffer_devices(plan: FlatTable) -> tuple[NonConstBufferDevice, ...] | None:
    """Read where planned buffers are allocated, if the plan says so."""
    if not plan.has("non_const_buffer_device"):
        return None
    return tuple(
        NonConstBufferDevice(
            buffer_idx=table.integer("buffer_idx"),
            device=table.enumerated("device_type", DeviceType),
            device_index=table.integer("device_index"),
        )
        for table in plan.children("non_const_buffer_device")
    )


def _values(plan: FlatTable, blobs: Blobs) -> tuple[Value, ...]:
    members = [value.member("val", KERNEL_TYPES) for value in plan.children("values")]
    return tuple(_value(kind, table, len(members), blobs) for kind, table in members)


def _value(kind: str, table: FlatTable, count: int, blobs: Blobs) -> Value:
    """Read one value; lists of indices are checked against the `count` of values."""
    if kind == "Tensor":
        return read_tensor(table, blobs)
    if kind not in _ID_LISTS:
        return read_shared(kind, table)  # type: ignore[no-any-return]
    lowest = -1 if kind == "OptionalTensorList" else 0
    return _ID_LISTS[kind](table.indices("items", count, lowest=lowest))


def _operator(table: FlatTable) -> Operator:
    """Read an operator's name."""
    return Operator(name=table.name("name"), overload=table.name("overload"))


def _delegate(table: FlatTable, blobs: Blobs) -> Delegate:
    """Read a delegate and find its blob."""
    reference = table.child("processed")
    if reference is None:
        raise table.error("missing", "processed")
    location = reference.enumerated("location", DataLocation)
    blob = _processed(reference, location, blobs)
    return Delegate(
        id=table.name("id"),
        compile_specs=tuple(
            CompileSpec(key=spec.name("key"), value=bytes(spec.blob("value")[1]))
            for spec in table.children("compile_specs")
        ),
        location=location,
        processed=blob.data,
        processed_at=blob.at,
    )


def _processed(reference: FlatTable, location: DataLocation, blobs: Blobs) -> Bytes:
    """Return a delegate's blob, in a segment or inline."""
    if location is DataLocation.INLINE:
        return blobs.inline_delegates[reference.index("index", len(blobs.inline_delegates))]
    extent = segment_of(reference, blobs.segments, "index")
    return Bytes(cut(blobs.data, extent, reference.path("index")), extent)


def _instructions(
    chains: tuple[FlatTable, ...], values: int, operators: int, delegates: int
) -> tuple[Instruction, ...]:
    """Read the chains as one list of instructions; a jump inside of one is counted from where that starts."""
    instructions: list[Instruction] = []
    for chain in chains:
        members = [entry.member("instr_args", INSTRUCTIONS) for entry in chain.children("instructions")]
        base, end = len(instructions), len(members) + 1
        counts = {"op_index": operators, "delegate_index": delegates, "destination_instruction": end}
        for kind, table in members:
            entry = _instruction(_INSTRUCTIONS[kind], table, counts, values)
            if isinstance(entry, JumpFalseCall):
                entry = replace(entry, destination_instruction=base + entry.destination_instruction)
            instructions.append(entry)
    return tuple(instructions)


def _instruction(
    kind: type[Instruction], table: FlatTable, counts: Mapping[str, int], values: int
) -> Instruction:
    """Read an instruction, all of whose fields are indices: of values, but for those that have a count of their own."""
    names = [of.name for of in fields(kind)]
    read: Mapping[str, Callable[[str, int], Any]] = {"args": table.indices}
    return kind(**{name: read.get(name, table.index)(name, counts.get(name, values)) for name in names})
