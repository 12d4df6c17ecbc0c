"""Methods of the program flatbuffer: values, instructions, operators, delegates.

Source: schema/program.fbs and runtime/executor/method.cpp of ExecuTorch 1.5.
"""

from collections.abc import Iterable
from typing import Final

from vkfuse.pte.blobs import Blobs
from vkfuse.pte.enums import DataLocation, DeviceType, enumerated
from vkfuse.pte.flatbuffer import FlatTable
from vkfuse.pte.layout import INSTRUCTIONS, KERNEL_TYPES
from vkfuse.pte.model import (
    BoxedIntList,
    BufferDevice,
    CompileSpec,
    Delegate,
    DelegateCall,
    Frame,
    FreeCall,
    Instruction,
    JumpFalseCall,
    KernelCall,
    Method,
    MoveCall,
    Operator,
    OptionalTensorList,
    TensorList,
    Value,
)
from vkfuse.pte.scalars import read_scalar
from vkfuse.pte.segments import Bytes, cut, segment_of
from vkfuse.pte.tensor import read_tensor

_ID_LISTS: Final[dict[str, type[BoxedIntList | TensorList | OptionalTensorList]]] = {
    "IntList": BoxedIntList,
    "TensorList": TensorList,
    "OptionalTensorList": OptionalTensorList,
}


def checked(
    table: FlatTable, name: str, ids: Iterable[int], count: int, *, lowest: int = 0
) -> tuple[int, ...]:
    """Return the ids; FormatError where one is not in lowest..count-1."""
    ids = tuple(ids)
    for index in ids:
        if not lowest <= index < count:
            raise table.error(f"index {index} of {count}", name)
    return ids


def index_of(table: FlatTable, name: str, count: int) -> int:
    """Return an index field; FormatError where it is not in 0..count-1."""
    return checked(table, name, (table.integer(name),), count)[0]


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
        inputs=checked(plan, "inputs", plan.integers("inputs"), len(values)),
        outputs=checked(plan, "outputs", plan.integers("outputs"), len(values)),
        instructions=_instructions(chains, len(values), len(operators), len(delegates)),
        operators=operators,
        delegates=delegates,
        non_const_buffer_sizes=plan.integers("non_const_buffer_sizes"),
        encoded_inputs=meta.text("encoded_inp_str") if meta else "",
        encoded_outputs=meta.text("encoded_out_str") if meta else "",
        chain_inputs=tuple(
            index
            for chain in chains
            for index in checked(chain, "inputs", chain.integers("inputs"), len(values))
        ),
        chain_outputs=tuple(
            index
            for chain in chains
            for index in checked(chain, "outputs", chain.integers("outputs"), len(values))
        ),
        frames=_frames(chains),
        buffer_devices=_buffer_devices(plan),
    )


def _frames(chains: tuple[FlatTable, ...]) -> tuple[tuple[Frame, ...], ...] | None:
    """Read where each instruction comes from, if any chain says so."""
    if not any(chain.has("stacktrace") for chain in chains):
        return None
    return tuple(
        tuple(_frame(table) for table in frames.children("items"))
        for chain in chains
        for frames in chain.children("stacktrace")
    )


def _frame(table: FlatTable) -> Frame:
    """Read a line of a program."""
    return Frame(
        filename=table.text("filename"),
        lineno=table.integer("lineno"),
        name=table.text("name"),
        context=table.text("context"),
    )


def _buffer_devices(plan: FlatTable) -> tuple[BufferDevice, ...] | None:
    """Read where planned buffers are allocated, if the plan says so."""
    if not plan.has("non_const_buffer_device"):
        return None
    return tuple(
        BufferDevice(
            buffer_idx=table.integer("buffer_idx"),
            device=enumerated(table, "device_type", DeviceType),
            device_index=table.integer("device_index"),
        )
        for table in plan.children("non_const_buffer_device")
    )


def _values(plan: FlatTable, blobs: Blobs) -> tuple[Value, ...]:
    """Read all values of a plan."""
    members = [value.member("val", KERNEL_TYPES) for value in plan.children("values")]
    return tuple(_value(kind, table, len(members), blobs) for kind, table in members)


def _value(kind: str, table: FlatTable, count: int, blobs: Blobs) -> Value:
    """Read one value; lists of indices are checked against the `count` of values."""
    if kind == "Tensor":
        return read_tensor(table, blobs)
    if kind not in _ID_LISTS:
        return read_scalar(kind, table)
    lowest = -1 if kind == "OptionalTensorList" else 0
    return _ID_LISTS[kind](checked(table, "items", table.integers("items"), count, lowest=lowest))


def _operator(table: FlatTable) -> Operator:
    """Read an operator's name."""
    return Operator(name=table.name("name"), overload=table.name("overload"))


def _delegate(table: FlatTable, blobs: Blobs) -> Delegate:
    """Read a delegate and find its blob."""
    reference = table.child("processed")
    if reference is None:
        raise table.error("missing", "processed")
    location = enumerated(reference, "location", DataLocation)
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
        return blobs.inline_delegates[index_of(reference, "index", len(blobs.inline_delegates))]
    extent = segment_of(reference, blobs.segments, "index")
    return Bytes(cut(blobs.data, extent, reference.path("index")), extent)


def _instructions(
    chains: tuple[FlatTable, ...], values: int, operators: int, delegates: int
) -> tuple[Instruction, ...]:
    """Read the chains as one list of instructions."""
    instructions: list[Instruction] = []
    for chain in chains:
        members = [entry.member("instr_args", INSTRUCTIONS) for entry in chain.children("instructions")]
        base, end = len(instructions), len(members)
        instructions += [
            _jump(table, values, base, end)
            if kind == "JumpFalseCall"
            else _instruction(kind, table, values, operators, delegates)
            for kind, table in members
        ]
    return tuple(instructions)


def _jump(table: FlatTable, values: int, base: int, end: int) -> JumpFalseCall:
    """Read a jump inside a chain of `end` instructions that starts at `base`."""
    return JumpFalseCall(
        cond_value_index=index_of(table, "cond_value_index", values),
        destination_instruction=base + index_of(table, "destination_instruction", end + 1),
    )


def _instruction(kind: str, table: FlatTable, values: int, operators: int, delegates: int) -> Instruction:
    """Read an instruction that is no jump."""
    if kind == "MoveCall":
        return MoveCall(
            move_from=index_of(table, "move_from", values), move_to=index_of(table, "move_to", values)
        )
    if kind == "FreeCall":
        return FreeCall(value_index=index_of(table, "value_index", values))
    args = checked(table, "args", table.integers("args"), values)
    if kind == "KernelCall":
        return KernelCall(op_index=index_of(table, "op_index", operators), args=args)
    return DelegateCall(delegate_index=index_of(table, "delegate_index", delegates), args=args)
