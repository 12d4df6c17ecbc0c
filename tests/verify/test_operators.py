"""Operators of a Vulkan graph: all have a definition, and those that are not torch's are what the shaders compute.

The numbers expected here were read off ExecuTorch's Vulkan runtime 1.5.0 on a software driver.
"""

import math

import pytest
import torch
from build_graphs import site
from executorch.backends.vulkan.op_registry import vulkan_supported_ops

from vkfuse.lint.operands import operands_of
from vkfuse.program.operators import register_operators
from vkfuse.program.tensors import TORCH_TYPES
from vkfuse.pte.enums import VkDataType, VkMemoryLayout, VkStorageType
from vkfuse.pte.values import Int
from vkfuse.pte.vulkan import OperatorCall, VkTensor
from vkfuse.runtime.judge import judge
from vkfuse.runtime.versions import DEFAULT, find_runtime
from vkfuse.verify.vulkan.call import Call
from vkfuse.verify.vulkan.table import kernels

inf, nan = math.inf, math.nan
_KINDS = {TORCH_TYPES[kind.scalar]: kind for kind in VkDataType if kind.scalar is not None}


def run(name, *args, storage=VkStorageType.TEXTURE_3D, constants=(), out=(torch.float32,)):
    """Run an operator on values; `constants` are positions. Returns (result, codes of the behaviours that applied)."""
    register_operators()
    noted = []
    operands = [_operand(value, at in constants, storage) for at, value in enumerate(args)]
    outputs = [_operand(torch.empty(0, dtype=dtype), False, storage) for dtype in out]
    call = Call(
        name=name,
        where="test",
        args=args,
        operands=(*operands, *outputs),
        values=(),
        storages=tuple(getattr(operand, "storage", None) for operand in (*operands, *outputs)),
        note=noted.append,
    )
    return kernels()[name](call), noted


def _operand(value, constant, storage):
    if not isinstance(value, torch.Tensor):
        return Int(value) if isinstance(value, int) else None
    kind = _KINDS.get(value.dtype, VkDataType.INT32)
    return VkTensor(
        dtype=kind,
        dims=tuple(value.shape),
        constant_id=0 if constant else -1,
        storage=storage,
        layout=VkMemoryLayout.TENSOR_WIDTH_PACKED,
        staging_dtype=kind,
    )


def test_every_operator_that_the_partitioner_emits_has_a_definition():
    """Whatever ExecuTorch's partitioner may delegate and the runtime registers can be executed here."""
    register_operators()
    emitted = {op if isinstance(op, str) else getattr(op, "__name__", str(op)) for op in vulkan_supported_ops}
    assert emitted & find_runtime(DEFAULT).operators <= set(kernels())


def test_definitions_are_of_operators_that_the_runtime_has():
    """No definition stands for an operator that no file for this runtime can hold."""
    register_operators()
    assert set(kernels()) <= find_runtime(DEFAULT).operators


@pytest.mark.parametrize(
    ("name", "args", "expected", "code"),
    [
        (
            "aten.pow.Tensor_Tensor",
            ([-2.0, -2.0, 0.0, 2.0], [2.0, 3.0, -1.0, -2.0]),
            [nan, nan, 0.0, 0.25],
            "pow-of-negative",
        ),
        ("aten.pow.Tensor_Scalar", ([-2.0, 0.0, 2.0], 1.5), [2.8284271, 0.0, 2.8284271], "pow-by-magnitude"),
        ("aten.pow.Tensor_Scalar", ([-2.0, 0.0, 2.0], -1.0), [-0.5, 0.0, 0.5], "pow-by-magnitude"),
        (
            "aten.eq.Tensor",
            ([1.0, 1.0, inf, 0.0], [1.000001, 1.0001, inf, 5e-6]),
            [True, False, False, True],
            "equal-within-1e-5",
        ),
        ("aten.gelu.default", ([3.0], "none"), [2.9963627], "gelu-by-tanh"),
        (
            "aten._softmax.default",
            ([[1.0, -inf], [-inf, -inf]], -1, False),
            [[1.0, 0.0], [0.0, 0.0]],
            "masked-row-zero",
        ),
        ("aten.div.Tensor_mode", ([-7.0, 7.0], [2.0, 2.0], "trunc"), [-4.0, 3.0], "division-always-floored"),
        ("aten.div.Tensor_mode", ([-5, 5], [2, 2], "floor"), [-2.0, 2.0], "division-always-floored"),
    ],
    ids=["pow", "pow-fraction", "pow-negative", "eq", "gelu", "softmax", "div", "div-integers"],
)
def test_what_the_shader_computes_otherwise(name, args, expected, code):
    """Results are the device's where they are not torch's, and the behaviour is named."""
    values = [torch.tensor(arg) if isinstance(arg, list) else arg for arg in args]
    result, noted = run(name, *values)
    torch.testing.assert_close(result, torch.tensor(expected), equal_nan=True)
    assert noted == [code]


_LARGE = [2**24 + 1, 123456789, -(2**31)]


@pytest.mark.parametrize(
    ("name", "args", "in_textures", "in_buffers"),
    [
        ("aten.add.Tensor", (_LARGE, [0, 0, 0], 1), [2**24, 123456792, -(2**31)], _LARGE),
        ("aten.sub.Tensor", ([0, 0], _LARGE[:2], 2), [-(2**25), -246913584], [-(2**25) - 2, -246913578]),
        ("aten.clamp.default", (_LARGE, -(2**24) - 1, None), [2**24, 123456792, -(2**24)], None),
        ("aten.full.default", ([2], 2**24 + 1), [2**24] * 2, None),
    ],
    ids=["add", "sub", "clamp", "full"],
)
def test_integers_that_a_shader_computes_in_float32(name, args, in_textures, in_buffers):
    """Integers of more than 24 bits are rounded where the shader's numbers are float32, and that is named."""
    values = [
        torch.tensor(arg, dtype=torch.int32) if arg != [2] and isinstance(arg, list) else arg for arg in args
    ]
    for storage, expected in (
        (VkStorageType.TEXTURE_3D, in_textures),
        (VkStorageType.BUFFER, in_buffers or in_textures),
    ):
        result, noted = run(name, *values, storage=storage)
        assert result.tolist() == expected
        assert noted == ([] if in_buffers and expected is in_buffers else ["integer-arithmetic"])


def test_ordinary_values_meet_no_behaviour():
    """On values where shader and definition agree nothing is reported."""
    x = torch.tensor([1.0, 2.0, 3.0])
    for name, args in (
        ("aten.pow.Tensor_Scalar", (x, 3.0)),
        ("aten.pow.Tensor_Tensor", (x, x)),
        ("aten.eq.Tensor", (x, x)),
        ("aten._softmax.default", (x, -1, False)),
        ("aten.sum.dim_IntList", (x, [-1], False, None)),
    ):
        assert run(name, *args, storage=VkStorageType.BUFFER)[1] == []


@pytest.mark.parametrize(
    ("storage", "expected"), [(VkStorageType.BUFFER, 65504.0), (VkStorageType.TEXTURE_3D, 120000.0)]
)
def test_row_sums_in_buffers_are_clamped(storage, expected):
    """A sum along the rows of a buffer stays within half precision's range, float32 though it is."""
    result, noted = run(
        "aten.sum.dim_IntList",
        torch.tensor([[50000.0, 40000.0, 30000.0]]),
        [-1],
        False,
        None,
        storage=storage,
    )
    assert result.tolist() == [expected]
    assert noted == (["row-reduction-clamped"] if storage is VkStorageType.BUFFER else [])


def _table(rows=16, columns=64, group=32):
    torch.manual_seed(0)
    weight = torch.randint(0, 256, (rows, columns // 2), dtype=torch.uint8)
    return weight, torch.rand(rows, columns // group)


def _dequantized(weight, scales, group, *, low_first):
    """The definition, spelled out value by value."""
    rows, columns = weight.shape[0], weight.shape[1] * 2
    out = torch.empty(rows, columns)
    for row in range(rows):
        for column in range(columns):
            byte = int(weight[row, column // 2])
            nibble = byte & 15 if (column % 2 == 0) == low_first else byte >> 4
            out[row, column] = (nibble - 8) * scales[row, column // group]
    return out


@pytest.mark.parametrize("low_first", [True, False])
def test_lookup_reads_nibbles_in_either_order(low_first):
    """Both nibble orders of the fused lookup, against the definition value by value, bit for bit."""
    weight, scales = _table()
    indices = torch.tensor([[0, 15, 3]], dtype=torch.int32)
    out, noted = run(
        "et_vk.embedding_q4gsw.default", weight, scales, 32, indices, low_first, constants=(0, 1)
    )
    assert torch.equal(out, _dequantized(weight, scales, 32, low_first=low_first)[indices.long()])
    assert noted == []


def test_lookup_reads_one_row_of_an_index_texture():
    """Of two rows of indices in a texture the second reads zeros; in a buffer it is read as it is."""
    weight, scales = _table()
    table = _dequantized(weight, scales, 32, low_first=True)
    indices = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.int32)
    arguments = ("et_vk.embedding_q4gsw.default", weight, scales, 32, indices, True)
    texture, noted = run(*arguments, constants=(0, 1))
    assert torch.equal(texture, table[torch.tensor([[1, 2, 3], [0, 0, 0]])])
    assert noted == ["indices-more-than-one-row"]
    buffer, noted = run(*arguments, constants=(0, 1), storage=VkStorageType.BUFFER)
    assert torch.equal(buffer, table[indices.long()])
    assert noted == []


def test_lookup_loads_a_scale_for_four_values():
    """With groups of two each run of four values has the first one's scale."""
    weight, scales = _table(group=2)
    out, noted = run(
        "et_vk.embedding_q4gsw.default", weight, scales, 2, torch.tensor([3]), True, constants=(0, 1)
    )
    of_four = scales.repeat_interleave(2, 1)[:, ::4].contiguous()
    assert torch.equal(out, _dequantized(weight, of_four, 4, low_first=True)[[3]])
    assert noted == ["group-not-multiple-of-4"]


def test_an_index_outside_of_the_table_is_undefined():
    """Rows that no table has are no number, whatever the device may find there."""
    weight, scales = _table()
    out, noted = run(
        "et_vk.embedding_q4gsw.default", weight, scales, 32, torch.tensor([2, 16, -1]), True, constants=(0, 1)
    )
    assert out.isnan().all(dim=1).tolist() == [False, True, True]
    assert noted == ["no-bounds-check"]


def test_int4_linear_multiplies_the_first_matrix_only():
    """Of a batch of matrices the first is right, the others are undefined."""
    weight, scales = _table(rows=12)
    x = torch.randn(2, 3, 64)
    out, noted = run(
        "et_vk.linear_q4gsw.default", x, weight, scales.t().contiguous(), 32, None, constants=(1, 2)
    )
    expected = x[0] @ _dequantized(weight, scales, 32, low_first=True).t()
    torch.testing.assert_close(out[0], expected)
    assert bool(out[1].isnan().all())
    assert noted == ["linear-input-batched"]


def _8da4w(rows_in):
    weight, scales = _table(rows=12)
    x = torch.randn(rows_in, 64)
    (scale, zero), _ = run(
        "torchao.choose_qparams_affine.default",
        x,
        "ASYMMETRIC",
        [1, 64],
        None,
        -128,
        127,
        out=(torch.float32,) * 2,
    )
    values = _dequantized(weight, torch.ones_like(scales), 32, low_first=True)
    sums = values.reshape(12, 2, 32).sum(-1).t().contiguous().int()
    out, noted = run(
        "et_vk.linear_dq8ca_q4gsw.default",
        x,
        scale,
        zero,
        weight,
        sums,
        scales.t().contiguous(),
        32,
        None,
        constants=(3, 4, 5),
    )
    return x, scale, zero, _dequantized(weight, scales, 32, low_first=True), out, noted


def test_8da4w_rounds_activations():
    """Several rows are rounded to 8 bits with their own scale and zero point before they are multiplied."""
    x, scale, zero, weight, out, noted = _8da4w(5)
    rounded = ((x / scale[:, None]).round() + zero[:, None]).clamp(-128, 127)
    torch.testing.assert_close(
        out, ((rounded - zero[:, None]) * scale[:, None]) @ weight.t(), rtol=1e-4, atol=1e-5
    )
    assert noted == []


def test_8da4w_leaves_a_single_row_alone():
    """One row is multiplied as it is."""
    x, _, _, weight, out, noted = _8da4w(1)
    torch.testing.assert_close(out, x @ weight.t())
    assert noted == ["one-row-not-quantized"]


@pytest.mark.parametrize(
    ("name", "args", "constants", "code"),
    [
        (
            "et_vk.embedding_q4gsw.default",
            (torch.zeros(4, 20, dtype=torch.uint8), torch.ones(4, 1), 40, torch.tensor([0]), True),
            (0, 1),
            "columns-not-multiple-of-32",
        ),
        (
            "et_vk.embedding_q4gsw.default",
            (torch.zeros(4, 16, dtype=torch.uint8), torch.ones(4, 1), 32, torch.tensor([0]), True),
            (0,),
            "not-a-constant",
        ),
        (
            "et_vk.linear_q4gsw.default",
            (torch.ones(2, 32), torch.zeros(6, 16, dtype=torch.uint8), torch.ones(1, 6), 32, None),
            (1, 2),
            "rows-not-multiple-of-4",
        ),
        (
            "torchao.choose_qparams_affine.default",
            (torch.ones(2, 3, 8), "ASYMMETRIC", [1, 1, 8], None, -128, 127),
            (),
            "quantized-input-batched",
        ),
        (
            "aten.native_layer_norm.default",
            (torch.ones(2, 8), [8], torch.ones(8), None, 1e-5),
            (2,),
            "layer-norm-without-bias",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_the_runtime_does_not_build(name, args, constants, code):
    """What a session's lint refuses with a stable code before a kernel runs."""
    values = [
        *(_operand(value, at in constants, VkStorageType.TEXTURE_3D) for at, value in enumerate(args)),
        None,
    ]
    call = OperatorCall(node_id=0, name=name, args=tuple(range(len(values))))
    found = judge(operands_of(site(values, [call]), call), find_runtime(DEFAULT))
    assert [objection.code for objection in found] == [code]


def test_sums_that_overflow_in_some_order():
    """Terms of both signs that go beyond float32 make no number that one could expect; of one sign they are infinite."""
    weight, scales = _table(rows=12)
    values = _dequantized(weight, scales, 32, low_first=True)
    x = torch.full((3, 64), -3.4e38)
    x[1], x[2] = 1.0, torch.inf
    args = (x, weight, scales.t().contiguous(), 32, None)
    for out in (
        run("et_vk.linear_q4gsw.default", *args, constants=(1, 2))[0],
        run("aten.linear.default", x, values, None)[0],
    ):
        assert bool(out[0].isnan().all())
        torch.testing.assert_close(out[1], values.sum(-1))
    out, _ = run("aten.mm.default", x, values.abs().t() + 1)
    assert out.isneginf().all(-1).tolist() == [True, False, False]
    assert out[2].isposinf().all()
