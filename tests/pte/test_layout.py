"""The layout tables against the schemas that ExecuTorch ships."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from vkfuse.pte import enums, flatbuffer, layout

EXECUTORCH = Path(find_spec("executorch").submodule_search_locations[0])
PROGRAM = (EXECUTORCH / "exir/_serialize/program.fbs", EXECUTORCH / "exir/_serialize/scalar_type.fbs")
VULKAN = (EXECUTORCH / "backends/vulkan/serialization/schema.fbs",)
FLAT_TENSOR = (
    EXECUTORCH / "extension/flat_tensor/serialize/flat_tensor.fbs",
    EXECUTORCH / "extension/flat_tensor/serialize/scalar_type.fbs",
)
SAME = {"int64": "long", "uint64": "ulong", "int32": "int", "uint32": "uint", "uint8": "ubyte"}


class Schema:
    """The declarations of .fbs files, read with regular expressions."""

    def __init__(self, paths):
        text = "\n".join(path.read_text() for path in paths)
        self.text = re.sub(r"//[^\n]*", "", text)
        self.enums = {name: (base, body) for name, base, body in self._find(r"enum (\w+) : (\w+)")}
        self.unions = dict(self._find(r"union (\w+)"))
        self.tables = dict(self._find(r"table (\w+)"))

    def _find(self, head):
        return re.findall(head + r"\s*\{([^}]*)\}", self.text)

    def members(self, enum):
        """{name: number} of an enum."""
        return {name: int(number) for name, number in re.findall(r"(\w+)\s*=\s*(\d+)", self.enums[enum][1])}

    def fields(self, table):
        """[(name, type, default)] of a table, with aliases and enums resolved."""
        declared = re.findall(r"(\w+)\s*:\s*(\[?)([\w.]+)\]?(?:\s*=\s*(\w+))?[^;]*;", self.tables[table])
        return [self._field(name, bracket, kind, default) for name, bracket, kind, default in declared]

    def _field(self, name, bracket, kind, default):
        kind = kind.rpartition(".")[2]
        number = 0
        if kind in self.enums:
            number = self.members(kind)[default] if default and not default.isdigit() else int(default or 0)
            kind = self.enums[kind][0]
        elif kind in self.unions:
            kind = "union"
        kind = SAME.get(kind, kind)
        return name, f"[{kind}]" if bracket else kind, number


def declared(table):
    """[(name, type, default)] of one of our layouts, and a check of its slots."""
    slot = 0
    for name, field in table.items():
        slot += field.kind is layout.Kind.UNION
        assert field.slot == slot, name
        slot += 1
        vector = field.kind in {layout.Kind.SCALARS, layout.Kind.TABLES}
        yield name, f"[{field.element}]" if vector else field.element, field.default


@pytest.mark.parametrize(
    ("ours", "paths"),
    [(layout.PROGRAM, PROGRAM), (layout.VULKAN, VULKAN), (layout.FLAT_TENSOR, FLAT_TENSOR)],
    ids=["program", "vulkan", "flat_tensor"],
)
def test_tables_are_those_of_the_schema(ours, paths):
    """Every table has every field of the shipped schema, in its slot, with its type and default."""
    schema = Schema(paths)
    assert set(ours) == set(schema.tables)
    for name, table in ours.items():
        assert list(declared(table)) == schema.fields(name), name


def test_slots_that_are_read_suffice():
    """The reader keeps 16 slots of a vtable, which is more than any table has."""
    tables = (*layout.PROGRAM.values(), *layout.VULKAN.values(), *layout.FLAT_TENSOR.values())
    assert max(field.slot for table in tables for field in table.values()) < flatbuffer._MOST_SLOTS


def test_unions_are_those_of_the_schema():
    """Union members stand in the schema's order."""
    program, vulkan = Schema(PROGRAM), Schema(VULKAN)
    for ours, theirs in (
        (layout.KERNEL_TYPES, program.unions["KernelTypes"]),
        (layout.INSTRUCTIONS, program.unions["InstructionArguments"]),
        (layout.GRAPH_TYPES, vulkan.unions["GraphTypes"]),
    ):
        assert list(ours[1:]) == re.findall(r"\w+", theirs)


@pytest.mark.parametrize(
    ("enum", "paths", "name"),
    [
        (enums.ScalarType, PROGRAM, "ScalarType"),
        (enums.ShapeDynamism, PROGRAM, "TensorShapeDynamism"),
        (enums.TensorDataLocation, PROGRAM, "TensorDataLocation"),
        (enums.DataLocation, PROGRAM, "DataLocation"),
        (enums.DeviceType, PROGRAM, "DeviceType"),
        (enums.VkDataType, VULKAN, "VkDataType"),
        (enums.VkStorageType, VULKAN, "VkStorageType"),
        (enums.VkMemoryLayout, VULKAN, "VkMemoryLayout"),
    ],
)
def test_enums_are_those_of_the_schema(enum, paths, name):
    """Every enum has every member of the shipped schema, with its number."""
    assert {member.name: member.value for member in enum} == Schema(paths).members(name)
