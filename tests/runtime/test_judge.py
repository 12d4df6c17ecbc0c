"""The judge where it is asked before lowering: storages open, sizes dynamic, versions apart."""

from dataclasses import replace

import pytest

from vkfuse.pte.enums import VkDataType, VkMemoryLayout, VkStorageType
from vkfuse.runtime.device import LEAST
from vkfuse.runtime.judge import judge
from vkfuse.runtime.operands import ANY_STORAGE, Operands, Tensor
from vkfuse.runtime.operators import OPERATORS, record_of
from vkfuse.runtime.versions import find_runtime

NEWEST = find_runtime("1.5.1")
BUFFER, TEXTURE = frozenset({VkStorageType.BUFFER}), frozenset({VkStorageType.TEXTURE_3D})
CHANNELS = VkMemoryLayout.TENSOR_CHANNELS_PACKED


def floats(*dims, **facts):
    """Return a float tensor, its storage open."""
    return Tensor(dims=dims, dtype=VkDataType.FLOAT32, **facts)


def codes(operator, values, output, runtime=NEWEST):
    """Return the codes of a call."""
    return {o.code.value for o in judge(Operands(operator=operator, values=values, output=output), runtime)}


def test_what_holds_in_one_storage_only_is_left_open():
    """A sum of columns is not built in buffers, argmax not in textures: neither is refused while the storage is open."""
    total, most = "aten.sum.dim_IntList", "aten.argmax.default"
    for storages, wrong in ((BUFFER, {"reduce-dims"}), (TEXTURE, set()), (BUFFER | TEXTURE, set())):
        facts = {"storages": storages}
        assert codes(total, {"self": floats(4, 8, **facts), "dim": (0,)}, floats(8, **facts)) == wrong
    picked = Tensor(dims=(4,), dtype=VkDataType.INT32)
    assert codes(most, {"self": floats(4, 8, storages=TEXTURE), "dim": 1}, picked) == {"arg-reduce"}
    assert codes(most, {"self": floats(4, 8), "dim": 1}, picked) == set()
    assert codes(total, {"self": floats(2, 3, 4), "dim": (0, 1, 2)}, floats()) == {"reduce-dims"}


def test_a_type_without_a_shader_is_found_by_name():
    """A cast of integers to bools has no shader in either storage; a cast of floats to integers has one in both."""
    integers, bools = (Tensor(dims=(4,), dtype=dtype) for dtype in (VkDataType.INT32, VkDataType.BOOL))
    cast = "aten._to_copy.default"
    assert "no-shader" in codes(cast, {"self": integers}, bools)
    assert "no-shader" not in codes(cast, {"self": floats(4)}, integers)


def test_dynamic_sizes():
    """What is not resized is refused for dynamic sizes; expansions and repetitions are from 1.3 on, flips always."""
    length, row = floats(4, 8, dynamic=frozenset({0})), floats(1, 8)
    parts = {"split_sizes": (2, 6), "dim": 1}
    for call, before, now in (
        (("aten.split_with_sizes_copy.default", {"self": length, **parts}), {"no-resize"}, {"no-resize"}),
        (("aten.split_with_sizes_copy.default", {"self": floats(4, 8), **parts}), set(), set()),
        (("aten.expand_copy.default", {"self": row}), {"no-resize"}, set()),
        (("aten.expand_copy.default", {"self": length}), set(), set()),
        (("aten.repeat.default", {"self": length}), {"no-resize"}, set()),
        (("aten.flip.default", {"self": length}), set(), set()),
    ):
        output = length if call[0] == "aten.expand_copy.default" else call[1]["self"]
        assert codes(*call, output, find_runtime("1.2")) == before
        assert codes(*call, output) == now


def test_orders_of_dimensions():
    """A copy from one order into another is refused, one within an order is not."""
    last = floats(1, 3, 4, 4, order=(0, 2, 3, 1))
    for operator in ("dim_order_ops._to_dim_order_copy.default", "dim_order_ops._clone_dim_order.default"):
        assert "dim-order-ignored" in codes(operator, {"self": floats(1, 3, 4, 4)}, last)
        assert "dim-order-ignored" not in codes(operator, {"self": last}, last)


@pytest.mark.parametrize("name", ["", "_dw", "_general", "_im2col", "_pw", "_transposed"])
def test_8_bit_convolutions_are_of_one_image(name):
    """Measured: 766 of 1,152 values of three images wrong, those of the second and third."""
    for images, wrong in ((1, False), (3, True)):
        source = Tensor(dims=(images, 4, 5, 5), dtype=VkDataType.INT8)
        found = codes(f"et_vk.q8ta_conv2d{name}.default", {"input": source}, source)
        assert ("convolution-batched" in found) == wrong


@pytest.mark.parametrize(("kind", "rows"), [(VkDataType.FLOAT32, 64), (VkDataType.FLOAT16, 32)])
def test_8da4w_with_more_rows_than_columns(kind, rows):
    """Wrong up to 1.4 from one row more than columns on, in half precision than half the columns; right in 1.5."""
    for count, version, wrong in (
        (rows, "1.4", set()),
        (rows + 1, "1.4", {"more-rows-than-columns"}),
        (rows + 1, "1.5", set()),
    ):
        source = replace(floats(count, 64), dtype=kind)
        found = codes("et_vk.linear_dq8ca_q4gsw.default", {"input": source}, source, find_runtime(version))
        assert found == wrong, (count, version)


def test_indexing_by_version():
    """`a[:, idx]` is built from 1.5.1 on, `a[idx]` by all."""
    index, source = Tensor(dims=(2,), dtype=VkDataType.INT32), floats(4, 4)
    for version, later in (("1.4", {"index-later-axis"}), ("1.5.0", {"index-later-axis"}), ("1.5.1", set())):
        runtime = find_runtime(version)
        assert (
            codes("aten.index.Tensor", {"self": source, "indices": (None, index)}, floats(4, 2), runtime)
            == later
        )
        assert (
            codes("aten.index.Tensor", {"self": source, "indices": (index,)}, floats(2, 4), runtime) == set()
        )
    assert codes("aten.index.Tensor", {"self": source, "indices": (index, index)}, floats(2)) == {
        "index-later-axis"
    }


def test_the_device_decides_where_a_weight_lies():
    """A packed weight wider than a small device's textures goes into a buffer there."""
    weight = Tensor(dims=(8, 4096 * 4), dtype=VkDataType.FLOAT32, constant=True, storages=TEXTURE)
    call = Operands(
        operator="aten.linear.default",
        values={"input": floats(4, 4096 * 4, storages=TEXTURE), "weight": weight},
        output=floats(4, 8, storages=TEXTURE),
    )
    names = [list(record_of(call.operator).shaders(c)) for c in (call, replace(call, device=LEAST))]
    assert "pack_fp_linear_weight_texture2d_float_float" in names[0]
    call = replace(call, values={**call.values, "weight": replace(weight, dims=(8, 4097 * 4))})
    assert "pack_fp_linear_weight_buffer_float_float" in record_of(call.operator).shaders(
        replace(call, device=LEAST)
    )


def test_what_has_a_record_is_registered_somewhere():
    """No record is of an operator that no version has, but those that the backend's passes replace."""
    known = find_runtime("1.5.0").operators | NEWEST.operators | {"torchao.dequantize_affine.default"}
    assert [n for n, records in OPERATORS.items() if n not in known and not records[0].replaced] == []


def test_what_no_texture_holds():
    """2048 texels along the third side: by which values share a texel; not of buffers, of constants, of what is open."""
    for dims, facts, wrong in (
        ((2049, 4, 4), {}, True),
        ((2048, 4, 4), {}, False),
        ((8192, 4, 4), {"layout": CHANNELS}, False),
        ((8193, 4, 4), {"layout": CHANNELS}, True),
        ((16384, 16384), {}, False),
        ((16385, 4), {}, True),
        ((1025, 2, 4, 4), {}, True),
        ((2049, 4, 4), {"constant": True}, False),
        ((2049, 4, 4), {"storages": BUFFER}, False),
        ((2049, 4, 4), {"storages": ANY_STORAGE}, False),
    ):
        values = floats(*dims, **{"storages": TEXTURE, **facts})
        assert ("beyond-largest-texture" in codes("aten.relu.default", {"self": values}, values)) == wrong


def test_what_no_buffer_holds():
    """Scores of 16,383 tokens are 2^28 values: refused while they may be in a buffer, not in a texture nor as constants."""
    scores = (1, 16383, 16383)
    for facts, wrong in (
        ({}, True),
        ({"storages": BUFFER}, True),
        ({"storages": TEXTURE}, False),
        ({"constant": True}, False),
    ):
        found = codes("aten.relu.default", {"self": floats(*scores, **facts)}, floats(4, **facts))
        assert ("beyond-largest-buffer" in found) == wrong
    within = floats(1, 8192, 16384, storages=BUFFER)
    assert codes("aten.relu.default", {"self": within}, within) == set()
