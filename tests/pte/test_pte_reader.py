"""The reader against ExecuTorch's own deserializers, field by field, on real files."""

import dataclasses

import pytest

from vkfuse.errors import FormatError, InputError
from vkfuse.pte import model, parse_pte, read_ptd, read_pte, read_vulkan_graph, values, vulkan, vulkan_graphs

upstream = pytest.importorskip("executorch.exir._serialize._program")
schema = pytest.importorskip("executorch.exir.schema")
vulkan_serializer = pytest.importorskip("executorch.backends.vulkan.serialization.vulkan_graph_serialize")

LISTS = {
    "IntList": model.BoxedIntList,
    "TensorList": model.TensorList,
    "OptionalTensorList": model.OptionalTensorList,
    "DoubleList": values.DoubleList,
    "BoolList": values.BoolList,
}
SCALARS = {"Int": "int_val", "Bool": "bool_val", "Double": "double_val", "String": "string_val"}


def value_as_upstream(value):
    """(kind, content) of one of our values, tensors apart."""
    return type(value).__name__, dataclasses.astuple(value) if value is not None else ()


def expected_value(value):
    """(kind, content) of upstream's value, as ours is named."""
    kind = type(value).__name__
    if kind == "Null":
        return "NoneType", ()
    if kind in SCALARS:
        return kind, (getattr(value, SCALARS[kind]),)
    return LISTS[kind].__name__, (tuple(value.items),)


def check_tensor(ours, theirs, constants, mutable):
    """Compare a tensor, its allocation and the bytes that it starts with."""
    assert ours.scalar_type == theirs.scalar_type
    assert ours.sizes == tuple(theirs.sizes)
    assert ours.dim_order == tuple(theirs.dim_order)
    assert ours.dynamism == theirs.shape_dynamism
    assert ours.data_buffer_idx == theirs.data_buffer_idx
    extra, allocation = theirs.extra_tensor_info, theirs.allocation_info
    assert ours.name == ((extra.fully_qualified_name or "") if extra else "")
    assert ours.external == (extra is not None and int(extra.location) == 1)
    assert (ours.allocation is None) == (allocation is None)
    if allocation:
        offset = allocation.memory_offset_low + (allocation.memory_offset_high << 32)
        assert ours.allocation == model.Allocation(memory_id=allocation.memory_id, offset=offset)
    stored = mutable if allocation else constants
    if ours.data_buffer_idx:
        assert bytes(ours.data) == stored[ours.data_buffer_idx].storage[: ours.nbytes]
    else:
        assert ours.data is None


def check_instruction(ours, theirs):
    """Compare an instruction; field names agree but for the tuple of arguments."""
    assert type(ours).__name__ == type(theirs).__name__
    for field in dataclasses.fields(ours):
        expected = getattr(theirs, field.name)
        assert getattr(ours, field.name) == (tuple(expected) if isinstance(expected, list) else expected)


def check_method(ours, theirs, read):
    """Compare a method with an execution plan."""
    assert (ours.name, ours.inputs, ours.outputs) == (
        theirs.name,
        tuple(theirs.inputs),
        tuple(theirs.outputs),
    )
    assert ours.non_const_buffer_sizes == tuple(theirs.non_const_buffer_sizes)
    assert ours.encoded_inputs == theirs.container_meta_type.encoded_inp_str
    assert ours.encoded_outputs == theirs.container_meta_type.encoded_out_str
    assert [(op.name, op.overload) for op in ours.operators] == [
        (o.name, o.overload) for o in theirs.operators
    ]
    assert len(ours.values) == len(theirs.values)
    for value, expected in zip(ours.values, theirs.values, strict=True):
        if isinstance(expected.val, schema.Tensor):
            check_tensor(value, expected.val, read.program.constant_buffer, read.mutable_data)
        else:
            assert value_as_upstream(value) == expected_value(expected.val)
    (chain,) = theirs.chains
    for instruction, expected in zip(ours.instructions, chain.instructions, strict=True):
        check_instruction(instruction, expected.instr_args)
    for delegate, expected in zip(ours.delegates, theirs.delegates, strict=True):
        assert delegate.id == expected.id
        assert [(spec.key, spec.value) for spec in delegate.compile_specs] == [
            (spec.key, bytes(spec.value)) for spec in expected.compile_specs
        ]
        assert bytes(delegate.processed) == bytes(
            read.program.backend_delegate_data[expected.processed.index].data
        )


@pytest.mark.parametrize("name", ["mixed", "tied", "sorted", "inline", "external", "folded", "unfused"])
def test_program_equals_upstreams(files, name):
    """Values, instructions, operators, delegates, constants and named data equal what upstream reads."""
    path = files / f"{name}.pte"
    ours, theirs = read_pte(path), upstream.deserialize_pte_binary(path.read_bytes())
    assert ours.version == theirs.program.version
    for method, plan in zip(ours.methods, theirs.program.execution_plan, strict=True):
        check_method(method, plan, theirs)
    named = theirs.named_data
    expected = (
        {key: bytes(named.buffers[entry.buffer_index]) for key, entry in named.pte_data.items()}
        if named
        else {}
    )
    assert {key: bytes(data) for key, data in ours.named_data.items()} == expected


def vulkan_value(value):
    """(kind, content) of upstream's Vulkan value, as ours is named."""
    kind = type(value).__name__
    if kind == "VkTensor":
        return kind, tuple(
            tuple(item) if isinstance(item, list) else int(item)
            for item in (
                *(value.datatype, value.dims, value.constant_id, value.mem_obj_id, value.storage_type),
                *(value.memory_layout, value.staging_datatype),
            )
        )
    content = tuple(dataclasses.astuple(value))
    return "NoneType" if kind == "Null" else kind, tuple(
        tuple(c) if isinstance(c, list) else c for c in content
    )


def our_vulkan_value(value):
    """(kind, content) of our Vulkan value, a tensor's bytes apart."""
    if isinstance(value, vulkan.VkTensor):
        numbers = (value.dtype, value.dims, value.constant_id, value.mem_obj_id, value.storage)
        return "VkTensor", (*numbers, value.layout, value.staging_dtype)
    return value_as_upstream(value)


def check_graph(ours, blob):
    """Compare a graph with what flatc makes of the same blob."""
    flatbuffer = vulkan_serializer.extract_vk_flatbuffer(bytes(blob))
    theirs = vulkan_serializer.flatbuffer_to_vk_graph(flatbuffer)
    assert ours.version == theirs.version
    assert [dataclasses.astuple(call) for call in ours.chain] == [
        (call.node_id, call.name, tuple(call.args)) for call in theirs.chain
    ]
    assert (ours.input_ids, ours.output_ids) == (tuple(theirs.input_ids), tuple(theirs.output_ids))
    assert [our_vulkan_value(value) for value in ours.values] == [
        vulkan_value(v.value) for v in theirs.values
    ]
    assert [(c.offset, c.length, c.named_key) for c in ours.constants] == [
        (c.offset, c.length, c.named_key or "") for c in theirs.constants
    ]
    assert (ours.storage_override, ours.layout_override) == (
        theirs.storage_type_override,
        theirs.memory_layout_override,
    )


@pytest.mark.parametrize("name", ["fused", "tied", "inline"])
def test_vulkan_graph_equals_upstreams(files, name):
    """Calls, values and constants equal what flatc reads; constants are the .pte's named data."""
    pte = read_pte(files / f"{name}.pte")
    graphs = vulkan_graphs(pte)
    assert len(graphs) == sum(len(method.delegates) for method in pte.methods)
    for place, graph in graphs.items():
        (delegates,) = (m.delegates for m in pte.methods if m.name == place.method)
        check_graph(graph, delegates[place.delegate].processed)
        for constant in graph.constants:
            assert constant.named
            assert bytes(constant.data) == bytes(pte.named_data[constant.named_key])
            assert len(constant.data) == constant.length
        for value in graph.values:
            if isinstance(value, vulkan.VkTensor) and value.constant:
                assert len(value.data) == value.nbytes


def test_every_vulkan_value_and_inline_constants(files):
    """A blob by upstream's serializer with every member of the union; bytes stand inside the blob."""
    blob = (files / "inline_constants.vk").read_bytes()
    graph = read_vulkan_graph(blob, {})
    check_graph(graph, blob)
    assert {type(value).__name__ for value in graph.values} == {
        *("NoneType", "Int", "Double", "Bool", "VkTensor", "IntList", "DoubleList", "BoolList"),
        *("ValueList", "String", "SymInt"),
    }
    assert memoryview(graph.values[4].data).cast("f").tolist() == [0, 1, 2, 3, 4, 5]
    assert [bytes(constant.data) for constant in graph.constants[1:]] == [b"", b"\x07\x08"]


def test_external_data_is_found(files):
    """A constant in a .ptd is reported as external, and is there when the .ptd is given."""
    alone = read_pte(files / "external.pte")
    (tensor,) = (v for v in alone.methods[0].values if isinstance(v, model.Tensor) and v.external)
    assert tensor.data is None
    whole = read_pte(files / "external.pte", external=read_ptd(files / "external.ptd"))
    (tensor,) = (v for v in whole.methods[0].values if isinstance(v, model.Tensor) and v.external)
    assert len(tensor.data) == tensor.nbytes == 64 * 64 * 4
    folded = read_pte(files / "folded.pte")
    assert tensor.sizes == next(v.sizes for v in folded.methods[0].values if isinstance(v, model.Tensor))


def test_constants_are_not_copied(files):
    """A constant is a view of the mapped file."""
    pte = read_pte(files / "folded.pte")
    (tensor,) = (v for v in pte.methods[0].values if isinstance(v, model.Tensor) and v.constant)
    assert tensor.data.obj is pte.data.obj
    assert tensor.data.readonly


def test_unreadable_files_say_so(tmp_path):
    """A missing file, a directory and an empty file are errors of the input, with the path or the field."""
    with pytest.raises(InputError, match=r"missing\.pte"):
        read_pte(tmp_path / "missing.pte")
    with pytest.raises(InputError, match="cannot read"):
        read_pte(tmp_path)
    (tmp_path / "empty.pte").touch()
    with pytest.raises(FormatError, match="Program"):
        read_pte(tmp_path / "empty.pte")


def test_errors_name_the_field(files):
    """An index out of range is an error at its path in the schema."""
    data = bytearray((files / "folded.pte").read_bytes())
    pte = parse_pte(data)
    outputs = memoryview(data)[: pte.header.program_size]
    at = bytes(outputs).index((1).to_bytes(4, "little") + (2).to_bytes(4, "little"))  # outputs: [2]
    data[at + 4 : at + 8] = (99).to_bytes(4, "little")
    with pytest.raises(FormatError) as failure:
        parse_pte(data)
    assert failure.value.field == "execution_plan[0].outputs"
    assert "index 99 of 6" in str(failure.value)
