"""Products by float matrices that were on a grid of four bits: fused where that is exact and the runtime has it right."""

from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from vkfuse import optimize
from vkfuse.patch.graphs import GraphEdit
from vkfuse.pte import read_pte
from vkfuse.pte.enums import ScalarType, ShapeDynamism, VkDataType, VkMemoryLayout, VkStorageType
from vkfuse.pte.model import Allocation, NamedData
from vkfuse.pte.values import Extent
from vkfuse.pte.vulkan import VkTensor, vulkan_graphs
from vkfuse.pte.vulkan_writer import write_vulkan
from vkfuse.pte.writer import write_pte
from vkfuse.runtime.spelling import WIDTH

FUSED, VIEW, PAD = "et_vk.linear_q4gsw.default", "aten.view_copy.default", "aten.constant_pad_nd.default"
SLICE = "aten.slice_copy.Tensor"
LINEAR, COPY = "aten.linear.default", "aten.clone.default"
BUFFER = VkStorageType.BUFFER
TALL = VkMemoryLayout.TENSOR_HEIGHT_PACKED


SHAPES = {  # name: input, outputs, what differs, the calls in place of one linear
    "matrix": ((16, 64), 96, {}, [FUSED]),
    "one matrix": ((1, 16, 64), 96, {"dynamic": True}, [FUSED]),
    "batch": ((2, 16, 64), 96, {}, [VIEW, FUSED, VIEW]),
    "batch in buffers": ((2, 3, 8, 64), 100, {"storage": BUFFER}, [VIEW, FUSED, SLICE, VIEW]),
    "dynamic batch": ((4, 1, 64), 96, {"dynamic": True}, [VIEW, FUSED, VIEW]),
    "vector": ((64,), 96, {}, [VIEW, FUSED, VIEW]),
    "odd": ((3, 5, 52), 101, {"group": 4}, [VIEW, PAD, FUSED, SLICE, VIEW]),
    "packed by height": ((16, 64), 96, {"layout": TALL}, [COPY, FUSED, COPY]),
    "float": ((16, 64), 96, {"layout": TALL, "group": 0}, [COPY, LINEAR, COPY]),
    "float batch": ((2, 3, 8, 64), 96, {"group": 0}, [VIEW, LINEAR, VIEW]),
    "call-not-understood": ((16, 64), 96, {"stored": BUFFER}, [LINEAR]),
    "half": ((16, 64), 96, {"dtype": np.float16}, [FUSED]),
    "linear-input-batched": ((4, 16, 64), 96, {"dynamic": True}, [LINEAR]),
    "inputs-not-multiple-of-4": ((16, 66), 96, {"group": 66}, [LINEAR]),
}


def _write(path, source, dims, outputs, *, group=32, dtype=np.float32, **more):
    """Write a file of one linear: an input of `dims`, a matrix on a grid."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((outputs, dims[-1])).astype(dtype)
    if group:
        integers = random.integers(-8, 8, (outputs, dims[-1] // group, group)).astype(np.float32)
        scales = random.integers(1, 64, (outputs, dims[-1] // group, 1)).astype(np.float32) / 64
        weight = (integers * scales).reshape(outputs, dims[-1]).astype(dtype)
    stored = VkDataType.FLOAT16 if dtype is np.float16 else VkDataType.FLOAT32
    edit = GraphEdit()
    x, out = (
        edit.value(
            VkTensor(
                dtype=stored,
                dims=sizes,
                storage=more.get(which, more.get("storage", VkStorageType.TEXTURE_3D)),
                layout=more.get("layout", WIDTH),
                staging_dtype=stored,
            )
        )
        for which, sizes in (("source", dims), ("stored", (*dims[:-1], outputs)))
    )
    added = edit.constant(random.standard_normal(outputs).astype(dtype))
    edit.inputs, edit.outputs = [x], [out]
    edit.in_front([edit.call(LINEAR, x, edit.constant(weight), added, out)])
    file = read_pte(source)
    method, places, values = file.methods[0], count(step=1 << 16), [*file.methods[0].values]
    for index, sizes in ((method.inputs[0], dims), (method.outputs[0], (*dims[:-1], outputs))):
        values[index] = replace(
            values[index],
            sizes=sizes,
            dim_order=tuple(range(len(sizes))),
            scalar_type=ScalarType.HALF if dtype is np.float16 else ScalarType.FLOAT,
            dynamism=ShapeDynamism.DYNAMIC_BOUND if more.get("dynamic") else ShapeDynamism.STATIC,
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


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape(files, tmp_path, name):
    """The calls that an input of a shape takes, the values of a run, or the code of why not (as on the real runtime)."""
    dims, outputs, more, calls = SHAPES[name]
    _write(tmp_path / "in.pte", files / "fused.pte", dims, outputs, **more)
    report = optimize(tmp_path / "in.pte", tmp_path / "out.pte").report
    written = read_pte(tmp_path / "out.pte")
    (graph,) = vulkan_graphs(written).values()
    assert [call.name for call in graph.chain] == calls
    if LINEAR in calls[1:]:
        assert len(report.repairs) == 1
        return
    (row,) = report.tables
    if calls == [LINEAR]:
        assert row.reason.startswith(name)
        assert (tmp_path / "out.pte").read_bytes() == (tmp_path / "in.pte").read_bytes()
        return
    assert row.proof.kind == (
        "rounded" if name == "half" else "exact"
    )  # half rounds weights, the runtime its products
    verify = pytest.importorskip("vkfuse.verify.files")
    found = verify.verify_against_file(written, read_pte(tmp_path / "in.pte"), verify.VerifyOptions())
    assert found.status == "same"
    assert [(table.differing, bool(table.matches)) for table in found.tables] == [(0, True)]
