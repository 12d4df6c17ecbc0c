"""The tables of the three flatbuffer schemas that a deployed program is made of, as data.

A table is one line: its fields in slot order, `name:type` with the schema's own type names; `[T]` is a
vector, `union` takes two slots (`<name>_type` and `<name>`), `=` gives a default that is not zero. Enums
stand as their base type. tests/pte/test_layout.py compares these lines with the .fbs files of ExecuTorch.

Sources: schema/program.fbs, extension/flat_tensor/serialize/flat_tensor.fbs and
backends/vulkan/serialization/schema.fbs of ExecuTorch 1.5.
"""

from dataclasses import dataclass
from enum import Enum, auto
from struct import Struct
from typing import Final

SCALARS: Final = {
    "bool": Struct("<?"),
    "byte": Struct("<b"),
    "ubyte": Struct("<B"),
    "int": Struct("<i"),
    "uint": Struct("<I"),
    "long": Struct("<q"),
    "ulong": Struct("<Q"),
    "double": Struct("<d"),
}
_REFERENCE: Final = Struct("<I")


class Kind(Enum):
    """How a field is stored."""

    SCALAR = auto()
    STRING = auto()
    TABLE = auto()
    UNION = auto()
    SCALARS = auto()  # vector of scalars
    TABLES = auto()  # vector of tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field: its vtable slot, storage, element type (a scalar or table name) and default."""

    slot: int
    kind: Kind
    element: str
    codec: Struct  # of the scalar or vector element; of the reference otherwise
    default: float = 0


Layout = dict[str, dict[str, Field]]


def _field(slot: int, declaration: str) -> tuple[str, Field]:
    """`name:type=default` -> (name, Field)."""
    name, _, kind_and_default = declaration.partition(":")
    kind, _, default = kind_and_default.partition("=")
    element = kind.strip("[]")
    vector = kind != element
    codec = SCALARS.get(element, _REFERENCE)
    if element == "string":
        storage = Kind.STRING
    elif element == "union":
        storage = Kind.UNION
    elif element in SCALARS:
        storage = Kind.SCALARS if vector else Kind.SCALAR
    else:
        storage = Kind.TABLES if vector else Kind.TABLE
    absent = _ABSENT.get(element, int)(default or 0)
    return name, Field(slot=slot, kind=storage, element=element, codec=codec, default=absent)


_ABSENT: Final = {"bool": bool, "double": float}  # as a reader takes a field that is not there


def _table(declarations: str) -> dict[str, Field]:
    """One line of a schema below -> its fields by name."""
    fields: dict[str, Field] = {}
    slot = 0
    for declaration in declarations.split():
        slot += declaration.endswith(":union")  # the union's type byte stands in the slot before it
        name, field = _field(slot, declaration)
        fields[name] = field
        slot += 1
    return fields


def slots_of(fields: dict[str, Field]) -> int:
    """How many slots the vtable of a table with these fields has."""
    return max((field.slot + 1 for field in fields.values()), default=0)


def _layout(schema: dict[str, str]) -> Layout:
    """Return the field tables of a schema below by table name."""
    return {name: _table(declarations) for name, declarations in schema.items()}


_SHARED: Final = {
    "Null": "",
    "Int": "int_val:long",
    "Bool": "bool_val:bool",
    "Double": "double_val:double",
    "String": "string_val:string",
    "IntList": "items:[long]",
    "DoubleList": "items:[double]",
    "BoolList": "items:[bool]",
}

PROGRAM: Final = _layout(
    {
        **_SHARED,
        "ContainerMetadata": "encoded_inp_str:string encoded_out_str:string",
        "AllocationDetails": "memory_id:uint memory_offset_low:uint memory_offset_high:uint",
        "ExtraTensorInfo": "mutable_data_segments_idx:ulong fully_qualified_name:string location:byte "
        "device_type:byte device_index:byte",
        "Tensor": "scalar_type:byte storage_offset:int sizes:[int] dim_order:[ubyte] requires_grad:bool "
        "data_buffer_idx:uint allocation_info:AllocationDetails layout:byte shape_dynamism:byte "
        "extra_tensor_info:ExtraTensorInfo",
        "TensorList": "items:[int]",
        "OptionalTensorList": "items:[int]",
        "EValue": "val:union",
        "Operator": "name:string overload:string",
        "KernelCall": "op_index:int args:[int]",
        "DelegateCall": "delegate_index:int args:[int]",
        "MoveCall": "move_from:int move_to:int",
        "JumpFalseCall": "cond_value_index:int destination_instruction:int",
        "FreeCall": "value_index:int",
        "Instruction": "instr_args:union",
        "Frame": "filename:string lineno:int name:string context:string",
        "FrameList": "items:[Frame]",
        "BackendDelegateDataReference": "location:byte index:uint",
        "CompileSpec": "key:string value:[ubyte]",
        "BackendDelegate": "id:string processed:BackendDelegateDataReference compile_specs:[CompileSpec]",
        "Chain": "inputs:[int] outputs:[int] instructions:[Instruction] stacktrace:[FrameList]",
        "ExecutionPlan": "name:string container_meta_type:ContainerMetadata values:[EValue] inputs:[int] "
        "outputs:[int] chains:[Chain] operators:[Operator] delegates:[BackendDelegate] "
        "non_const_buffer_sizes:[long] non_const_buffer_device:[NonConstBufferDevice]",
        "NonConstBufferDevice": "buffer_idx:int device_type:byte device_index:byte",
        "Buffer": "storage:[ubyte]",
        "BackendDelegateInlineData": "data:[ubyte]",
        "DataSegment": "offset:ulong size:ulong",
        "SubsegmentOffsets": "segment_index:uint offsets:[ulong]",
        "NamedData": "key:string segment_index:uint",
        "Program": "version:uint execution_plan:[ExecutionPlan] constant_buffer:[Buffer] "
        "backend_delegate_data:[BackendDelegateInlineData] segments:[DataSegment] "
        "constant_segment:SubsegmentOffsets mutable_data_segments:[SubsegmentOffsets] named_data:[NamedData]",
    }
)
KERNEL_TYPES: Final = (
    *("NONE", "Null", "Int", "Bool", "Double", "Tensor", "String", "IntList", "DoubleList", "BoolList"),
    *("TensorList", "OptionalTensorList"),
)
INSTRUCTIONS: Final = ("NONE", "KernelCall", "DelegateCall", "MoveCall", "JumpFalseCall", "FreeCall")

VULKAN: Final = _layout(
    {
        **_SHARED,
        "OperatorCall": "node_id:uint name:string args:[int]",
        "VkTensor": "datatype:byte dims:[uint] constant_id:int mem_obj_id:int storage_type:ubyte=255 "
        "memory_layout:ubyte=255 staging_datatype:byte=127",
        "ValueList": "items:[int]",
        "SymInt": "value:int",
        "VkValue": "value:union",
        "VkBytes": "offset:ulong length:ulong named_key:string",
        "VkGraph": "version:string chain:[OperatorCall] values:[VkValue] input_ids:[uint] output_ids:[uint] "
        "constants:[VkBytes] shaders:[VkBytes] storage_type_override:ubyte=255 "
        "memory_layout_override:ubyte=255",
    }
)
GRAPH_TYPES: Final = (
    *("NONE", "Null", "Int", "Double", "Bool", "VkTensor", "IntList", "DoubleList", "BoolList", "ValueList"),
    *("String", "SymInt"),
)

FLAT_TENSOR: Final = _layout(
    {
        "TensorLayout": "scalar_type:byte sizes:[int] dim_order:[ubyte]",
        "DataSegment": "offset:ulong size:ulong",
        "NamedData": "key:string segment_index:uint tensor_layout:TensorLayout",
        "FlatTensor": "version:uint segments:[DataSegment] named_data:[NamedData]",
    }
)
