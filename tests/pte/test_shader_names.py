"""The shaders that the model names, against those that a real runtime 1.5.0 was seen to ask for.

`shader_calls.json` holds facts: operator -> [arguments, names], measured by loading a delegate of one call after
another on a device with integer dot products, no cooperative matrices, 16384 texels a side. Arguments are
`type storage layout sizes`, `type constant sizes`, scalars by kind, and lists of tensors in brackets. Copies of
bytes into textures, which have two ways by device, are left out.
"""

import json
from pathlib import Path

import pytest
from build_graphs import site

from vkfuse.lint.operands import Reader, operands_of
from vkfuse.pte.enums import VkDataType, VkMemoryLayout, VkStorageType
from vkfuse.pte.values import Bool, Double, Int, String
from vkfuse.pte.vulkan import IntList, OperatorCall, SymInt, ValueList, VkTensor
from vkfuse.runtime.border import border_shaders
from vkfuse.runtime.operators import OPERATORS, record_of
from vkfuse.runtime.operators.attention import IN_DELEGATES
from vkfuse.runtime.versions import find_runtime

CALLS = json.loads(Path(__file__).with_name("shader_calls.json").read_text("utf-8"))
RUNTIME = find_runtime("1.5.0")
MODELLED = {name for name in OPERATORS if record_of(name, RUNTIME.key).shaders} - IN_DELEGATES

TYPES = {
    "float": VkDataType.FLOAT32,
    "half": VkDataType.FLOAT16,
    "bool": VkDataType.BOOL,
    **{name: VkDataType[name.upper()] for name in ("int8", "uint8", "int32")},
}
STORAGES = {"texture3d": VkStorageType.TEXTURE_3D, "buffer": VkStorageType.BUFFER}
LAYOUTS = {
    **{name: VkMemoryLayout[f"TENSOR_{name.upper()}_PACKED"] for name in ("width", "height", "channels")},
    **{name: VkMemoryLayout[f"PACKED_INT8_{name.upper()}"] for name in ("4w4c", "4h4w", "4w", "4c", "4c1w")},
}
SCALARS = {
    "none": lambda: None,
    "int": lambda text: Int(int(text)),
    "symint": lambda text: SymInt(int(text)),
    "double": lambda text: Double(float(text)),
    "bool": lambda text: Bool(value=text == "1"),
    "string": String,
    "ints": lambda *texts: IntList(tuple(map(int, texts))),
}

# Shaders asked for that 1.5 lacks, by what asks for them.
MISSING = frozenset(
    (
        # arithmetic on integers and booleans
        *(f"binary_eq_{storage}_int32" for storage in STORAGES),
        *(
            f"view_convert_{to}_{kind}_uint8"
            for to in ("buffer", "texture")
            for kind in ("float", "half", "int32")
        ),
        *(f"concat_{count}_{storage}_uint8" for count in (1, 2, 3) for storage in STORAGES),
        *(f"index_tensor_{storage}_int32" for storage in STORAGES),
        *(
            f"scalar_tensor_{kind}_{storage}_uint8"
            for kind in ("float", "half", "int32")
            for storage in STORAGES
        ),
        "embedding_buffer_int32",
        # depthwise convolutions with strides unlike dilations and kernels other than 3 x 3 and 5 x 5
        *(f"conv2d_dw_sned{clamp}_{kind}" for clamp in ("", "_clamp") for kind in ("float", "half")),
        # 8-bit and per-channel 4-bit weights in half precision, and one row of the latter in any
        *(
            f"linear_qcs{bits}_{threads}_{storage}_{storage}_{weight}_texture2d_half_o4x{tile}"
            for bits, weight in (("8w", "texture2d"), ("4w", "buffer"))
            for threads, tile in (("coop", 1), ("tiled", 1), ("tiled", 3), ("tiled", 4))
            for storage in STORAGES
        ),
        *(f"linear_qcs4w_coop_{storage}_{storage}_buffer_texture2d_float_o4x1" for storage in STORAGES),
        *(f"linear_q8ta_q8csw_tiled_{storage}_buffer_texture2d_half" for storage in STORAGES),
        *(f"q8ta_{way}_{storage}_half" for way in ("quantize", "dequantize") for storage in STORAGES),
        "nchw_to_buffer_float_half",  # 4-bit linears of floats with half scales
        # attention of textures over caches or keys in buffers, and the other way round
        *(
            f"{name}_texture3d_buffer_{kind}"
            for name in (
                *("fused_sdpa_qk_tiled", "fused_sdpa_qk_tiled_bias", "fused_sdpa_av_tiled"),
                *("sdpa_compute_attn_weights_coop", "sdpa_compute_attn_weights_tiled"),
                *("sdpa_compute_out_coop", "sdpa_compute_out_gqa_coop", "sdpa_compute_out_tiled"),
            )
            for kind in ("float", "half")
        ),
        *(f"sdpa_kv_cache_update_buffer_texture3d_{kind}" for kind in ("float", "half")),
    )
)


def sizes(text):
    """`2x4` -> (2, 4)."""
    return () if text == "scalar" else tuple(map(int, text.split("x")))


def value(text):
    """Return one argument that is no list."""
    kind, *rest = text.split()
    if kind in SCALARS and (kind != "bool" or len(rest) == 1):
        return SCALARS[kind](*rest)
    constant = rest[0] == "constant"
    return VkTensor(
        dtype=TYPES[kind],
        dims=sizes(rest[-1]),
        constant_id=0 if constant else -1,
        storage=VkStorageType.DEFAULT_STORAGE if constant else STORAGES[rest[0]],
        layout=VkMemoryLayout.DEFAULT_LAYOUT if constant else LAYOUTS[rest[1]],
        staging_dtype=VkDataType.UNSET,
    )


def call_of(operator, values, arguments):
    """Return the operands of a call with these arguments, by index."""
    call = OperatorCall(node_id=0, name=operator, args=tuple(arguments))
    return operands_of(site(values, [call]), call)


def shader_names(operands):
    """Return the names that a call asks 1.5.0 for."""
    return list(record_of(operands.operator, RUNTIME.key).shaders(operands))


def parsed(operator, text):
    """Return the call that a line of the table describes."""
    values, arguments = [], []
    for argument in text.split(", "):
        if argument.startswith("["):
            members = [value(member) for member in argument[1:-1].split(" | ")]
            values += [*members, ValueList(tuple(range(len(values), len(values) + len(members))))]
        else:
            values.append(value(argument))
        arguments.append(len(values) - 1)
    return call_of(operator, values, arguments)


@pytest.mark.parametrize("operator", sorted(CALLS))
def test_names_are_those_that_the_runtime_asked_for(operator):
    """Each measured call of an operator: the same set, no name more and none less."""
    wrong = {
        text: (found, asked)
        for text, asked in CALLS[operator]
        if (found := set(shader_names(parsed(operator, text)))) != set(asked.split())
    }
    assert wrong == {}


def test_missing_shaders_are_known():
    """Every name of the table is among those that 1.5 has, or known to be missing; and the latter are."""
    named = {name for rows in CALLS.values() for _, asked in rows for name in asked.split()}
    assert named - RUNTIME.shaders == MISSING


def test_every_modelled_operator_is_measured_in_both_precisions():
    """The table has each operator, and those on floats in float and half."""
    assert set(CALLS) == set(MODELLED)
    assert set(MODELLED) <= RUNTIME.operators
    for operator in CALLS.keys() - ONE_PRECISION:
        kinds = {kind for text, _ in CALLS[operator] for kind in ("float", "half") if f"{kind} " in text}
        assert kinds in ({"float", "half"}, set()), operator


ONE_PRECISION = {
    "aten.select.int",  # other names of operators that are measured in both
    "conv_with_clamp.default",
    "et_vk.q4gsw_linear.default",
    *(op for op in CALLS if op.startswith(("et_vk.q8ta_", "et_vk.conv2d_q8"))),  # half was never built
}


@pytest.mark.parametrize("operator", sorted(MODELLED))
def test_calls_with_odd_arguments_are_no_crash(operator):
    """A file may call an operator with any arguments, of any sizes."""
    empty, scalar = value("float texture3d width 0x0"), value("half buffer width scalar")
    constant, packed = value("uint8 constant 3"), value("int8 buffer 4w4c 1x1x1")
    odd = [None, Int(0), Int(1), Bool(value=True), IntList(()), IntList((0, 7)), String("x"), empty, scalar]
    values = [*odd, constant, packed, ValueList(()), ValueList((0, 7, 8))]
    count = len(values)
    rows = [(), *([index] * 16 for index in range(count))]
    rows += [
        [(start + step * at) % count for at in range(16)] for start in range(count) for step in (1, 3, 5)
    ]
    for row in rows:
        for width in {len(row), min(len(row), 10), min(len(row), 4)}:
            assert all(isinstance(name, str) for name in shader_names(call_of(operator, values, row[:width])))


def test_packed_bytes_are_copied_by_their_own_shaders():
    """Inputs and outputs of four 8-bit integers a word (measured)."""
    tensors = Reader(site([value("int8 buffer 4w4c 1x4x4x8")])).tensors((0,))
    names = set(border_shaders(tensors, tensors))
    assert names == {"nchw_to_int8x4_buffer", "int8x4_buffer_to_nchw"}
    assert names <= RUNTIME.shaders
