"""The writer: what ExecuTorch wrote is written again, and what is built of a model is read as that model."""

import io
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vkfuse.errors import FormatError
from vkfuse.pte import model, parse_pte, read_pte, read_vulkan_graph, values, vulkan, vulkan_graphs
from vkfuse.pte.builder import build
from vkfuse.pte.enums import (
    DataLocation,
    DeviceType,
    ScalarType,
    ShapeDynamism,
    VkDataType,
    VkMemoryLayout,
    VkStorageType,
)
from vkfuse.pte.layout import PROGRAM, Field, Kind
from vkfuse.pte.nodes import method_node
from vkfuse.pte.records import Node
from vkfuse.pte.values import Extent
from vkfuse.pte.vulkan_writer import write_vulkan
from vkfuse.pte.writer import write_pte

NOWHERE = Extent(0, 0)
LOWERED = 5  # of the files, with a Vulkan delegate and as ExecuTorch writes by default


def written(file):
    """The bytes of a file as written."""
    stream = io.BytesIO()
    size = write_pte(file, stream)
    assert size == len(stream.getvalue())
    return stream.getvalue()


def meaning(file):
    """What a file says, wherever it stands."""
    return file.version, tuple(_method(method) for method in file.methods), _named(file)


def _named(file):
    return [(entry.key, bytes(entry.data)) for entry in file.named]


def _method(method):
    at_home = [
        replace(value, data_at=None) if isinstance(value, model.Tensor) else value for value in method.values
    ]
    delegates = [replace(each, processed_at=NOWHERE) for each in method.delegates]
    return replace(method, values=tuple(at_home), delegates=tuple(delegates))


def of_segments(data):
    """The bytes from the first segment on."""
    header = parse_pte(data).header
    return bytes(data)[header.segment_base :] if header else b""


def test_what_executorch_wrote_is_written_again(files):
    """Every value is kept, and the segments are the same bytes at the same distances; inline blobs become segments."""
    paths = sorted(files.glob("*.pte"))
    assert len(paths) > 10
    for path in paths:
        file = read_pte(path)
        again = parse_pte(written(file))
        if path.stem != "inline":
            assert meaning(again) == meaning(file), path
            assert of_segments(again.data) == of_segments(file.data), path
            assert again.constant_segment == file.constant_segment
            assert again.mutable_segments == file.mutable_segments
        assert written(again) == bytes(again.data)


def test_equal_new_blobs_are_one_segment(files):
    """Those that only begin alike, or are as long, are segments of their own; each name finds its bytes."""
    file = read_pte(min(files.glob("*.pte")))
    begin = bytes(1 << 13)
    blobs = {
        "a": begin + b"1",
        "b": begin + b"2",
        "c": begin + b"1",
        "d": begin,
        "e": b"",
        "f": b"1",
        "g": b"2",
    }
    named = tuple(
        model.NamedData(key=key, segment_index=0, data=memoryview(data), data_at=NOWHERE)
        for key, data in blobs.items()
    )
    again = parse_pte(written(replace(file, named=(*file.named, *named))))
    found = {entry.key: entry for entry in again.named}
    assert {key: bytes(found[key].data) for key in blobs} == blobs
    assert found["a"].data_at == found["c"].data_at
    assert len({found[key].data_at for key in "abdfg"}) == 5


def test_a_lowered_file_is_written_again_byte_for_byte(files):
    """With every graph written anew too, as flatc does: what `as_lowered` promises."""
    again = 0
    for path in sorted(files.glob("*.pte")):
        file = read_pte(path)
        graphs = vulkan_graphs(file)
        for place, graph in graphs.items():
            method = next(method for method in file.methods if method.name == place.method)
            assert write_vulkan(graph, as_lowered=True) == bytes(method.delegates[place.delegate].processed)
        stream = io.BytesIO()
        write_pte(file, stream, as_lowered=True)
        again += bool(graphs) and stream.getvalue() == bytes(file.data)
    assert again >= LOWERED


def test_executorch_reads_the_same_program(files):
    """ExecuTorch's own deserializer gives equal programs, constants, initial states and named data."""
    upstream = pytest.importorskip("executorch.exir._serialize._program")
    for path in sorted(files.glob("*.pte")):
        before = upstream.deserialize_pte_binary(path.read_bytes())
        after = upstream.deserialize_pte_binary(written(read_pte(path)))
        before.program.segments = after.program.segments = []
        assert after == before, path


def test_graphs_are_written_again(files):
    """A Vulkan delegate's blob, inline constants too, is read by us and by ExecuTorch as it was."""
    serializer = pytest.importorskip("executorch.backends.vulkan.serialization.vulkan_graph_serialize")
    blobs = [(path.read_bytes(), {}) for path in files.glob("*.vk")]
    for path in files.glob("*.pte"):
        file = read_pte(path)
        for place in vulkan_graphs(file):
            method = next(method for method in file.methods if method.name == place.method)
            blobs.append((bytes(method.delegates[place.delegate].processed), file.named_data))
    assert len(blobs) > 8
    for blob, named in blobs:
        graph = read_vulkan_graph(blob, named)
        again = write_vulkan(graph)
        assert graph_meaning(read_vulkan_graph(again, named)) == graph_meaning(graph)
        theirs = [
            serializer.flatbuffer_to_vk_graph(serializer.extract_vk_flatbuffer(each))
            for each in (blob, again)
        ]
        assert theirs[0] == theirs[1]


def graph_meaning(graph):
    """What a graph says, wherever it stands."""
    nowhere = replace(graph, header_at=NOWHERE, flatbuffer_at=NOWHERE, bytes_at=NOWHERE)
    return replace(
        nowhere,
        constants=tuple(replace(each, offset=0, at=each.at and NOWHERE) for each in graph.constants),
        shaders=tuple(replace(each, offset=0, at=each.at and NOWHERE) for each in graph.shaders),
    )


INT64, INT32, UINT32 = (
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 2**32 - 1),
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
DOUBLE = st.floats(width=64, allow_nan=False)
SCALAR = st.one_of(
    st.none(),
    st.builds(values.Int, INT64),
    st.builds(values.Bool, st.booleans()),
    st.builds(values.Double, DOUBLE),
    st.builds(values.String, TEXT),
    st.builds(values.DoubleList, st.lists(DOUBLE, max_size=3).map(tuple)),
    st.builds(values.BoolList, st.lists(st.booleans(), max_size=3).map(tuple)),
)


@st.composite
def tensors(draw, stored):
    """A tensor: an activation, planned or not, a constant, external, or with an initial state."""
    sizes = draw(st.lists(st.integers(0, 3), max_size=3).map(tuple))
    scalar_type = draw(st.sampled_from(ScalarType))
    kind = draw(st.sampled_from(["activation", "constant", "external", "initial"]))
    tensor = model.Tensor(
        scalar_type=scalar_type,
        sizes=sizes,
        dim_order=tuple(draw(st.permutations(range(len(sizes))))),
        dynamism=draw(st.sampled_from(ShapeDynamism)),
        data_buffer_idx=0,
        allocation=draw(st.builds(model.Allocation, memory_id=UINT32, offset=st.integers(0, 2**63)))
        if kind == "initial" or (kind == "activation" and draw(st.booleans()))
        else None,
        name=draw(TEXT) or "x" if kind == "external" else draw(TEXT),
        external=kind == "external",
        device=draw(st.sampled_from(DeviceType)),
        device_index=draw(st.integers(-128, 127)),
        requires_grad=draw(st.booleans()),
        layout=draw(st.integers(-128, 127)),
    )
    if kind not in {"constant", "initial"}:
        return tensor
    stored[kind] += 1
    data = draw(st.binary(min_size=tensor.nbytes, max_size=tensor.nbytes))
    return replace(tensor, data_buffer_idx=stored[kind], data=memoryview(bytearray(data)).toreadonly())


@st.composite
def methods(draw, name, stored):
    """A method whose indices are in range."""
    some = draw(st.lists(st.one_of(SCALAR, tensors(stored)), min_size=1, max_size=6))
    index = st.integers(0, len(some))
    indices = st.lists(index, max_size=3).map(tuple)
    lists = st.sampled_from([model.BoxedIntList, model.TensorList, model.OptionalTensorList])
    some.append(draw(st.builds(lambda kind, ids: kind(ids), lists, indices)))
    operators = draw(st.lists(st.builds(model.Operator, name=TEXT, overload=TEXT), max_size=2).map(tuple))
    delegates = draw(st.lists(delegate(), max_size=2).map(tuple))
    kinds = [
        st.builds(model.MoveCall, move_from=index, move_to=index),
        st.builds(model.FreeCall, value_index=index),
        st.builds(model.JumpFalseCall, cond_value_index=index, destination_instruction=st.just(0)),
    ]
    if operators:
        of = st.integers(0, len(operators) - 1)
        kinds.append(st.builds(model.KernelCall, op_index=of, args=indices))
    if delegates:
        of = st.integers(0, len(delegates) - 1)
        kinds.append(st.builds(model.DelegateCall, delegate_index=of, args=indices))
    frame = st.builds(model.Frame, filename=TEXT, lineno=INT32, name=TEXT, context=TEXT)
    device = st.builds(
        model.NonConstBufferDevice,
        buffer_idx=INT32,
        device=st.sampled_from(DeviceType),
        device_index=st.integers(-128, 127),
    )
    return model.Method(
        name=name,
        values=tuple(some),
        inputs=draw(indices),
        outputs=draw(indices),
        instructions=draw(st.lists(st.one_of(kinds), max_size=5).map(tuple)),
        operators=operators,
        delegates=delegates,
        non_const_buffer_sizes=draw(st.lists(INT64, max_size=3).map(tuple)),
        encoded_inputs=draw(TEXT),
        encoded_outputs=draw(TEXT),
        chain_inputs=draw(indices),
        chain_outputs=draw(indices),
        frames=draw(st.none() | st.lists(st.lists(frame, max_size=2).map(tuple), max_size=3).map(tuple)),
        buffer_devices=draw(st.none() | st.lists(device, max_size=2).map(tuple)),
    )


def delegate():
    """A delegate of any backend."""
    spec = st.builds(model.CompileSpec, key=TEXT, value=st.binary(max_size=5))
    made = st.builds(
        model.Delegate,
        id=TEXT,
        compile_specs=st.lists(spec, max_size=2).map(tuple),
        location=st.just(DataLocation.SEGMENT),
        processed=st.binary(max_size=40).map(memoryview),
        processed_at=st.just(NOWHERE),
    )
    return made.map(lambda each: each if each.processed else replace(each, location=DataLocation.INLINE))


@st.composite
def pte_files(draw):
    """A file of one or two methods."""
    stored = {"constant": 0, "initial": 0}
    names = draw(st.lists(TEXT, min_size=1, max_size=2, unique=True))
    keys = draw(st.lists(TEXT, max_size=3, unique=True))
    return model.PteFile(
        path="",
        data=memoryview(b""),
        header=None,
        version=draw(UINT32),
        methods=tuple(draw(methods(name, stored)) for name in names),
        program_at=NOWHERE,
        segments=(),
        constant_segment=None,
        mutable_segments=(),
        named=tuple(
            model.NamedData(
                key=key, segment_index=0, data=memoryview(draw(st.binary(max_size=40))), data_at=NOWHERE
            )
            for key in keys
        ),
        inline_delegates=(),
        inline_constants=(),
        external={},
    )


@given(pte_files())
def test_what_is_built_is_read(file):
    """Reading what is written of any model gives the model."""
    assert meaning(parse_pte(written(file))) == meaning(file)


@st.composite
def graphs(draw):
    """A Vulkan graph whose indices are in range."""
    inline = st.binary(max_size=24).map(
        lambda data: vulkan.Constant(
            offset=0,
            length=len(data),
            named_key="",
            data=memoryview(bytearray(data)).toreadonly(),
            at=NOWHERE,
        )
    )
    named = st.builds(
        vulkan.Constant,
        offset=st.just(vulkan.NAMED),
        length=st.integers(0, 2**64 - 1),
        named_key=TEXT,
        data=st.none(),
        at=st.none(),
    )
    constants = draw(st.lists(st.one_of(inline, named), max_size=3).map(tuple))
    activation = st.builds(
        vulkan.VkTensor,
        dtype=st.sampled_from(VkDataType),
        dims=st.lists(UINT32, max_size=4).map(tuple),
        constant_id=st.just(-1),
        mem_obj_id=INT32,
        storage=st.sampled_from(VkStorageType),
        layout=st.sampled_from(VkMemoryLayout),
        staging_dtype=st.sampled_from(VkDataType),
    )
    integers = st.lists(INT64, max_size=3).map(tuple)
    some = draw(
        st.lists(
            st.one_of(
                SCALAR, activation, st.builds(vulkan.IntList, integers), st.builds(vulkan.SymInt, INT32)
            ),
            min_size=1,
            max_size=6,
        )
    )
    indices = st.lists(st.integers(0, len(some)), max_size=3).map(tuple)
    some.append(vulkan.ValueList(draw(indices)))
    call = st.builds(vulkan.OperatorCall, node_id=UINT32, name=TEXT, args=indices)
    return vulkan.VulkanGraph(
        version=draw(TEXT),
        chain=draw(st.lists(call, max_size=3).map(tuple)),
        values=tuple(some),
        input_ids=draw(indices),
        output_ids=draw(indices),
        constants=constants,
        shaders=draw(st.lists(inline, max_size=2).map(tuple)),
        storage_override=draw(st.sampled_from(VkStorageType)),
        layout_override=draw(st.sampled_from(VkMemoryLayout)),
    )


@given(graphs())
def test_graph_that_is_built_is_read(graph):
    """Reading what is written of any graph gives the graph, the bytes of its constants too."""
    again = graph_meaning(read_vulkan_graph(write_vulkan(graph), {}))
    assert again == graph_meaning(graph)


def test_what_is_changed_is_written(files):
    """A constant, a blob and named data that were replaced are there; what none refers to is gone."""
    file = read_pte(files / "folded.pte")
    method = file.methods[0]
    at, table = next(
        (at, value)
        for at, value in enumerate(method.values)
        if isinstance(value, model.Tensor) and value.constant
    )
    small = replace(table, sizes=(4, 4), data=memoryview(bytes(range(64))))
    entry = model.NamedData(key="note", segment_index=0, data=memoryview(b"of ours"), data_at=NOWHERE)
    changed = replace(method, values=(*method.values[:at], small, *method.values[at + 1 :]))
    data = written(replace(file, methods=(changed,), named=(*file.named, entry)))
    again = parse_pte(data)
    assert bytes(again.methods[0].values[at].data) == bytes(range(64))
    assert bytes(again.named_data["note"]) == b"of ours"
    assert len(data) < file.size - table.nbytes + 512


def test_negative_zero_keeps_its_sign(files):
    """-0.0 is not taken for the default of a double."""
    file = read_pte(files / "folded.pte")
    method = replace(file.methods[0], values=(*file.methods[0].values, values.Double(-0.0)))
    again = parse_pte(written(replace(file, methods=(method,))))
    assert str(again.methods[0].values[-1].value) == "-0.0"


def test_fields_of_a_newer_schema_are_not_lost_silently():
    """A table with a field that the schema lacks is read, and not written again."""
    newer = {**PROGRAM, "Program": {**PROGRAM["Program"]}}
    newer["Program"]["later"] = Field(
        slot=8, kind=Kind.SCALAR, element="uint", codec=PROGRAM["Program"]["version"].codec
    )
    file = parse_pte(build(Node("Program", {"execution_plan": (), "later": 3}), newer, {}, b"ET12"))
    assert file.unread == "Program"
    with pytest.raises(FormatError, match="newer schema"):
        written(file)


def test_overlapping_segments_are_refused(files):
    """A file whose named data overlap is not multiplied."""
    file = read_pte(files / "tied.pte")
    many = [
        model.NamedData(key=str(at), segment_index=0, data=file.data[at:], data_at=NOWHERE) for at in range(9)
    ]
    with pytest.raises(FormatError, match="overlap"):
        written(replace(file, named=tuple(many)))


LARGE = """
import sys
from pathlib import Path
from dataclasses import replace
from vkfuse.mapping import map_file
from vkfuse.pte import model, read_pte
from vkfuse.pte.values import Extent
from vkfuse.pte.writer import write_pte
file, large = read_pte(sys.argv[1]), map_file(sys.argv[2])
entry = model.NamedData(key="large", segment_index=0, data=large, data_at=Extent(0, 0))
class Sink:
    def write(self, data):
        return len(bytes(memoryview(data)[::4096]))  # each page is touched
size = write_pte(replace(file, named=(entry,)), Sink())
status = Path("/proc/self/status").read_text()  # ru_maxrss starts at the parent's
print(size, status.partition("VmHWM:")[2].split()[0])
"""


def test_a_gibibyte_passes_in_little_memory(files, tmp_path):
    """What is mapped is not kept in memory when it is written."""
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(1 << 30)
    ran = subprocess.run(
        [sys.executable, "-c", LARGE, files / "folded.pte", large], capture_output=True, text=True, check=True
    )
    size, kibibytes = map(int, ran.stdout.split())
    assert size > 1 << 30
    assert kibibytes < 200 << 10


def fields_of(node, found):
    """Gather the names of fields that a tree writes, by table."""
    found.setdefault(node.table, set()).update(node.fields)
    for value in node.fields.values():
        for child in value if isinstance(value, list | tuple) else [value]:
            if isinstance(child, Node):
                fields_of(child, found)
    return found


def test_every_field_of_the_schema_is_written(files):
    """What the schema gains does not stay out unnoticed: all fields but two that are never stored are written."""
    found = {}
    for name in ("mixed", "traced", "fused"):
        for method in read_pte(files / f"{name}.pte").methods:
            device = model.NonConstBufferDevice(buffer_idx=1, device=DeviceType.CUDA, device_index=0)
            named = [
                replace(value, name="name") if isinstance(value, model.Tensor) else value
                for value in (*method.values, *EVERY)
            ]
            whole = replace(method, values=tuple(named), buffer_devices=(device,), delegates=(DELEGATE,))
            entries = (model.MoveCall(move_from=0, move_to=0), model.FreeCall(value_index=0))
            whole = replace(whole, instructions=(*whole.instructions, *entries))
            fields_of(method_node(whole, lambda _: 0, lambda _: (DataLocation.SEGMENT, 0)), found)
    found["Tensor"].add("storage_offset")  # must be zero
    outside = {
        "Program",
        "Buffer",
        "BackendDelegateInlineData",
        "DataSegment",
        "SubsegmentOffsets",
        "NamedData",
    }
    assert found == {name: set(table) for name, table in PROGRAM.items() if name not in outside}


DELEGATE = model.Delegate(
    id="",
    compile_specs=(model.CompileSpec(key="", value=b""),),
    location=DataLocation.INLINE,
    processed=memoryview(b""),
    processed_at=NOWHERE,
)
EVERY = (
    None,
    values.Int(1),
    values.Bool(True),
    values.Double(1.0),
    values.String(""),
    values.DoubleList(()),
    values.BoolList(()),
    model.BoxedIntList(()),
    model.TensorList(()),
    model.OptionalTensorList(()),
)
