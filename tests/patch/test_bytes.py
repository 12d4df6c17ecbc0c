"""Tables of floats that were on a grid of eight bits: one byte a weight again, gathered on the CPU or multiplied by."""

from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from vkfuse import optimize
from vkfuse.patch.graphs import GraphEdit
from vkfuse.pte import read_pte
from vkfuse.pte.enums import ScalarType, ShapeDynamism, VkDataType, VkStorageType
from vkfuse.pte.model import Allocation, KernelCall, NamedData, Tensor
from vkfuse.pte.values import Bool, Extent, Int
from vkfuse.pte.vulkan import VkTensor, vulkan_graphs
from vkfuse.pte.vulkan_writer import write_vulkan
from vkfuse.pte.writer import write_pte
from vkfuse.runtime.spelling import WIDTH

GATHER, CAST = "aten::embedding.out", "dim_order_ops::_to_dim_order_copy.out"
VIEW, LESS, TIMES = "executorch_prim::et_view.default", "aten::sub.out", "aten::mul.out"
BY_ROW = [GATHER, GATHER, TIMES]
BY_GROUP = [GATHER, GATHER, CAST, VIEW, VIEW, TIMES]
SHIFTED = [GATHER, GATHER, CAST, VIEW, GATHER, VIEW, LESS, VIEW, TIMES]
LOOKUP, LINEAR, FUSED = "aten.embedding.default", "aten.linear.default", "et_vk.linear_q8csw.default"
RESHAPE, SLICE = "aten.view_copy.default", "aten.slice_copy.Tensor"
# table: columns of a group (0: the row), the lowest integer, the calls that make its rows
TABLES = {"row": (0, -128, BY_ROW), "groups": (20, -128, BY_GROUP), "zero points": (0, 0, SHIFTED)}


def on_grid(rows, columns, group=0, lowest=-128, dtype=np.float32):
    """Floats that were integers of eight bits, from `lowest` on in every other row, and a scale for each group."""
    random = np.random.default_rng(rows + columns)
    integers = random.integers(-128, 128, (rows, columns // (group or columns), group or columns))
    integers[::2] += lowest + 128
    integers[:, :, :2] = (1, 127)  # no divisor in common
    scales = random.integers(1, 64, (*integers.shape[:2], 1)).astype(np.float32) / 64
    return (integers.astype(np.float32) * scales).reshape(rows, columns).astype(dtype)


def kernels(file):
    """The CPU calls of a file, in order."""
    (method,) = file.methods
    return [method.operators[e.op_index].full_name for e in method.instructions if isinstance(e, KernelCall)]


def same(new, old):
    """A file computes what the other does; return the largest difference, and how many values of its tables differ."""
    verify = pytest.importorskip("vkfuse.verify.files")
    found = verify.verify_against_file(read_pte(new), read_pte(old), verify.VerifyOptions(seeds=2))
    assert found.status == "same", found.message
    off = max(output.max_abs for run in found.runs for output in run.outputs)
    return off, [table.differing for table in found.tables]


@pytest.mark.parametrize("name", TABLES)
def test_lookups_on_the_cpu(files, tmp_path, name):
    """In front of a delegate, of a batch, at dynamic sizes: rows are gathered and dequantized (as on the real runtime)."""
    group, lowest, calls = TABLES[name]
    before = read_pte(files / "padded.pte")
    (method,) = before.methods
    values = [
        replace(value, data=on_grid(*value.sizes, group, lowest).reshape(-1).view(np.uint8).data)
        if isinstance(value, Tensor) and value.constant
        else value
        for value in method.values
    ]
    with (tmp_path / "in.pte").open("wb") as stream:
        write_pte(replace(before, methods=(replace(method, values=tuple(values)),)), stream)
    report = optimize(tmp_path / "in.pte", tmp_path / "out.pte").report
    (row,) = report.tables
    assert (row.rung, row.proof.kind, row.bits, row.how) == ("gathered", "exact", 8, ("grid-found",))
    assert row.reason.startswith("more-than-4-bits")
    assert row.bytes_after < row.bytes_before / 2.8
    assert kernels(read_pte(tmp_path / "out.pte")) == calls
    assert same(tmp_path / "out.pte", tmp_path / "in.pte") == (0.0, [0])


def _write(path, source, dims, outputs, table, weight):
    """Write a file of one delegate: indices are looked up and multiplied, with a bias."""
    kind, stored = (
        (ScalarType.HALF, VkDataType.FLOAT16)
        if table.dtype == np.float16
        else (ScalarType.FLOAT, VkDataType.FLOAT32)
    )
    edit = GraphEdit()
    sizes = {"ids": dims, "rows": (*dims, table.shape[1]), "out": (*dims, outputs)}
    ids, rows, out = (
        edit.value(
            VkTensor(
                dtype=VkDataType.INT32 if name == "ids" else stored,
                dims=of,
                constant_id=-1,
                mem_obj_id=at,
                storage=VkStorageType.TEXTURE_3D,
                layout=WIDTH,
                staging_dtype=VkDataType.INT32 if name == "ids" else stored,
            )
        )
        for at, (name, of) in enumerate(sizes.items())
    )
    no = edit.value(Bool(value=False))
    added = edit.constant(np.arange(outputs, dtype=table.dtype))
    edit.inputs, edit.outputs = [ids], [out]
    edit.in_front(
        [
            edit.call(LOOKUP, edit.constant(table), ids, edit.value(Int(-1)), no, no, rows),
            edit.call(LINEAR, rows, edit.constant(weight), added, out),
        ]
    )
    file = read_pte(source)
    method, places, values = file.methods[0], count(step=1 << 16), [*file.methods[0].values]
    for index, of, scalar in (
        (method.inputs[0], dims, ScalarType.LONG),
        (method.outputs[0], sizes["out"], kind),
    ):
        values[index] = replace(
            values[index],
            sizes=of,
            dim_order=tuple(range(len(of))),
            scalar_type=scalar,
            dynamism=ShapeDynamism.DYNAMIC_BOUND,
            allocation=Allocation(memory_id=1, offset=next(places)),
        )
    blob = memoryview(write_vulkan(edit.graph()))
    delegate = replace(method.delegates[0], processed=blob, processed_at=Extent(file.size, len(blob)))
    method = replace(method, values=tuple(values), delegates=(delegate,), non_const_buffer_sizes=(0, 1 << 17))
    named = tuple(
        NamedData(key=key, segment_index=0, data=data, data_at=Extent(file.size, len(data)))
        for key, data in edit.named.items()
    )
    with path.open("wb") as stream:
        write_pte(replace(file, methods=(method,), named=named), stream)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    ("dims", "outputs", "columns", "dtype", "product"),
    [
        ((1, 7), 96, 60, np.float32, [FUSED]),
        ((4, 1), 90, 60, np.float32, [RESHAPE, FUSED, SLICE, RESHAPE]),
        ((1, 7), 96, 60, np.float16, [FUSED]),
    ],
)
def test_lookups_and_linears_in_a_delegate(files, tmp_path, name, dims, outputs, columns, dtype, product):
    """The lookup leaves the delegate, which takes rows for indices; the linear reads bytes, of zero points floats."""
    group, lowest, calls = TABLES[name]
    if dtype == np.float16:  # what a byte times a scale is, rounded
        lowest = -128
        calls = BY_GROUP if group else BY_ROW
    _write(
        tmp_path / "in.pte",
        files / "fused.pte",
        dims,
        outputs,
        on_grid(300, columns, group, lowest, dtype),
        on_grid(outputs, columns, dtype=dtype),
    )
    report = optimize(tmp_path / "in.pte", tmp_path / "out.pte").report
    written = read_pte(tmp_path / "out.pte")
    assert {row.shape: (row.rung, row.bits) for row in report.tables} == {
        (300, columns): ("gathered", 8),
        (outputs, columns): ("q8", 8),
    }
    (graph,) = vulkan_graphs(written).values()
    assert (kernels(written), [call.name for call in graph.chain]) == (calls, product)
    assert len(graph.input_ids) == 1
    assert same(tmp_path / "out.pte", tmp_path / "in.pte")[1] == [0, 0]


def _changed(source, target, **changes):
    """Write a file with another graph in its delegate, whose output has the sizes of its last tensor."""
    file = read_pte(source)
    (method,), (graph,) = file.methods, vulkan_graphs(file).values()
    graph = replace(graph, **changes)
    blob = memoryview(write_vulkan(graph))
    delegate = replace(method.delegates[0], processed=blob, processed_at=Extent(file.size, 1))
    values = [*method.values]
    at = method.outputs[0]
    values[at] = replace(values[at], sizes=graph.values[graph.output_ids[0]].dims)
    with target.open("wb") as stream:
        write_pte(
            replace(file, methods=(replace(method, delegates=(delegate,), values=tuple(values)),)), stream
        )
    return target


def test_lookups_whose_rows_leave_the_delegate(files, tmp_path):
    """A delegate that only looks up is gone; one that computes its indices keeps its floats, with the reason."""
    source = tmp_path / "m.pte"
    _write(source, files / "fused.pte", (1, 7), 96, on_grid(300, 60), on_grid(96, 60))
    (graph,) = vulkan_graphs(read_pte(source)).values()
    lookup = graph.chain[0]
    alone = _changed(source, tmp_path / "in.pte", chain=graph.chain[:1], output_ids=lookup.args[-1:])
    (row,) = optimize(alone, tmp_path / "out.pte").report.tables
    written = read_pte(tmp_path / "out.pte")
    assert (row.rung, kernels(written), written.methods[0].delegates) == ("gathered", BY_ROW, ())
    assert same(tmp_path / "out.pte", alone) == (0.0, [0])
    made = (*graph.values, graph.values[graph.input_ids[0]])
    computed = replace(graph.chain[0], name="aten.clone.default", args=(lookup.args[1], 0, len(made) - 1))
    moved = replace(lookup, args=(lookup.args[0], len(made) - 1, *lookup.args[2:]))
    odd = _changed(source, tmp_path / "in.pte", values=made, chain=(computed, moved, *graph.chain[1:]))
    rows = optimize(odd, tmp_path / "out.pte").report.tables
    assert [row.rung for row in rows] == ["untouched", "q8"]
