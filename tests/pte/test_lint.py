"""What lint says of real files, and of one small graph a rule."""

import dataclasses

import pytest
from build_graphs import site
from measured_calls import CALLS, operands

from vkfuse.errors import InputError
from vkfuse.lint import faults, lint
from vkfuse.lint.findings import Finding
from vkfuse.lint.operands import Reader, operands_of
from vkfuse.pte import read_pte
from vkfuse.pte.enums import VkDataType, VkMemoryLayout, VkStorageType
from vkfuse.pte.place import Place
from vkfuse.pte.values import Bool, Double, Int, String
from vkfuse.pte.vulkan import IntList, OperatorCall, ValueList, VkTensor
from vkfuse.runtime.border import border_shaders
from vkfuse.runtime.codes import Code
from vkfuse.runtime.judge import judge
from vkfuse.runtime.operators import OPERATORS, record_of
from vkfuse.runtime.versions import cpu_kernels, find_runtime

Q4 = "et_vk.embedding_q4gsw.default"
LINEAR = "et_vk.linear_q4gsw.default"


WIDTH, CHANNELS = VkMemoryLayout.TENSOR_WIDTH_PACKED, VkMemoryLayout.TENSOR_CHANNELS_PACKED


def tensor(
    *dims,
    dtype=VkDataType.FLOAT32,
    constant=False,
    storage=VkStorageType.TEXTURE_3D,
    staging=None,
    layout=WIDTH,
):
    """Return a tensor of a graph."""
    return VkTensor(
        dtype=dtype,
        dims=dims,
        constant_id=0 if constant else -1,
        storage=storage,
        layout=layout,
        staging_dtype=staging or VkDataType.UNSET,
    )


def constant(*dims, dtype=VkDataType.FLOAT32):
    """Return a constant of a graph."""
    return tensor(*dims, dtype=dtype, constant=True, storage=VkStorageType.DEFAULT_STORAGE)


def packed(*dims):
    """Return a 4-bit weight."""
    return constant(*dims, dtype=VkDataType.UINT8)


def indices(*dims, storage=VkStorageType.TEXTURE_3D):
    """Return indices of a lookup."""
    return tensor(*dims, dtype=VkDataType.INT32, storage=storage)


def call(name, *arguments):
    """Return the operands of a call whose arguments are these values."""
    operator = OperatorCall(node_id=0, name=name, args=tuple(range(len(arguments))))
    return operands_of(site(arguments, [operator]), operator)


RUNTIME = find_runtime("1.5.0")


def codes(made):
    """{code: effect} of all rules on one call."""
    found = [objection.code for objection in judge(made, RUNTIME)]
    return {code: code.effect for code in found if code is not Code.NO_SHADER}


def shader_names(made):
    """Return the names that a call asks 1.5.0 for."""
    return list(record_of(made.operator, RUNTIME.key).shaders(made))


def lookup(weight=None, scales=None, group=32, ids=None, out=None, *, linear=True):
    """Return a fused lookup, right unless an argument says otherwise."""
    return call(
        Q4,
        weight or packed(64, 32),
        scales or constant(64, 2),
        Int(group),
        ids or indices(1, 5),
        Bool(value=linear),
        out or tensor(1, 5, 64),
    )


def linear(source=None, weight=None, scales=None, group=32, out=None):
    """Return a 4-bit linear, right unless an argument says otherwise."""
    return call(
        LINEAR,
        source or tensor(5, 64),
        weight or packed(64, 32),
        scales or constant(2, 64),
        Int(group),
        None,
        out or tensor(5, 64),
    )


BUFFER = VkStorageType.BUFFER


def reduced(dims, *sizes, storage=VkStorageType.TEXTURE_3D, layout=WIDTH):
    """Return a sum of a tensor of `sizes` along `dims`, which stay as ones."""
    source = tensor(*sizes, storage=storage, layout=layout)
    out = tensor(
        *[1 if dims is None or at - len(sizes) in dims else n for at, n in enumerate(sizes)], storage=storage
    )
    return call(
        "aten.sum.dim_IntList", source, None if dims is None else IntList(dims), Bool(value=True), None, out
    )


def summed(source, group):
    """Return a linear of rows that are quantized first, whose groups are of so many columns."""
    rest = [*[None] * 5, Int(group), None]
    return call("et_vk.linear_dq8ca_q4gsw.default", source, *rest, tensor(3, 8))


def most(dim, storage):
    """Return an argmax of a matrix."""
    return call(
        "aten.argmax.default", tensor(3, 4, storage=storage), Int(dim), Bool(value=True), tensor(3, 1)
    )


def pooled(stride):
    """Return an average of windows of two by two."""
    image = tensor(1, 3, 8, 8, layout=CHANNELS)
    return call("aten.avg_pool2d.default", image, IntList((2, 2)), IntList(stride), IntList((0, 0)), image)


WRONG_AND_RIGHT = [
    (lookup(weight=tensor(64, 32, dtype=VkDataType.UINT8)), lookup(), {"not-a-constant": "fails"}),
    (lookup(scales=tensor(64, 2)), lookup(), {"not-a-constant": "fails"}),
    (linear(scales=tensor(2, 64)), linear(), {"not-a-constant": "fails"}),
    (call("et_vk.prepack.default", tensor(4), tensor(4)), linear(), {"not-a-constant": "fails"}),
    (lookup(weight=packed(64, 24), group=4), lookup(group=4), {"columns-not-multiple-of-32": "fails"}),
    (lookup(linear=False), lookup(), {"needs-8-bit-storage": "note"}),
    (lookup(scales=constant(64, 2, dtype=VkDataType.FLOAT16)), lookup(), {"needs-16-bit-storage": "note"}),
    (lookup(group=2), lookup(group=4), {"group-not-multiple-of-4": "wrong"}),
    (linear(group=2), linear(group=4), {"group-not-multiple-of-4": "wrong"}),
    (lookup(group=48), lookup(group=64), {"group-does-not-divide-columns": "wrong"}),
    (lookup(ids=indices(2, 3)), lookup(ids=indices(1, 1, 6)), {"indices-more-than-one-row": "wrong"}),
    (
        lookup(ids=indices(2, 3, storage=BUFFER)),
        lookup(ids=indices(2, 3, storage=BUFFER), out=tensor(2, 3, 64, storage=BUFFER)),
        {"indices-stored-unlike-output": "wrong"},
    ),
    (linear(source=tensor(2, 16, 64)), linear(source=tensor(1, 32, 64)), {"linear-input-batched": "wrong"}),
    (linear(weight=packed(127, 32)), linear(weight=packed(128, 32)), {"rows-not-multiple-of-4": "fails"}),
    (
        call("torchao.choose_qparams_affine.default", tensor(2, 16, 128), None),
        call("torchao.choose_qparams_affine.default", tensor(1, 16, 128), None),
        {"quantized-input-batched": "fails"},
    ),
    (
        call("torchao.choose_qparams_affine.default", tensor(16, 30, storage=BUFFER), None),
        call("torchao.choose_qparams_affine.default", tensor(16, 30), None),
        {"columns-not-multiple-of-4": "fails"},
    ),
    (summed(tensor(3, 96), 96), summed(tensor(3, 96), 48), {"group-summed-in-turns": "wrong"}),
    (summed(tensor(3, 256), 256), summed(tensor(3, 256), 128), {"group-summed-in-turns": "wrong"}),
    (
        call("et_vk.linear_dq8ca_q4gsw.default", tensor(1, 1, 64), None),
        call("et_vk.linear_dq8ca_q4gsw.default", tensor(1, 2, 64), None),
        {"one-row-not-quantized": "note"},
    ),
    (
        call("aten.native_layer_norm.default", tensor(2, 4), None, constant(4), None, None),
        call("aten.native_layer_norm.default", tensor(2, 4), None, constant(4), constant(4), None),
        {"layer-norm-without-bias": "fails"},
    ),
    (
        call(
            "aten.native_layer_norm.default",
            tensor(2, 4),
            IntList((2, 4)),
            constant(2, 4),
            constant(2, 4),
            None,
        ),
        call("aten.native_layer_norm.default", tensor(2, 4), IntList((4,)), constant(4), constant(4), None),
        {"layer-norm-shape": "fails"},
    ),
    (
        call("et_vk.rms_norm.default", tensor(1, 8, 2, 64), constant(), None, tensor(1, 8, 2, 64)),
        call("et_vk.rms_norm.default", tensor(1, 8, 2, 64), constant(1, 64), None, tensor(1, 8, 2, 64)),
        {"rms-norm-weight": "wrong"},
    ),
    (
        call("et_vk.rms_norm.default", tensor(1, 8, 2, 64), constant(2, 64), None, tensor(1, 8, 2, 64)),
        call("et_vk.rms_norm.default", tensor(1, 8, 2, 64), constant(64), None, tensor(1, 8, 2, 64)),
        {"rms-norm-weight": "wrong"},
    ),
    (
        call("aten.native_group_norm.default", tensor(1, 8, 5), constant(8), constant(8), None),
        call("aten.native_group_norm.default", tensor(1, 8, 5, 1), constant(8), constant(8), None),
        {"group-norm-shape": "wrong"},
    ),
    (
        call("aten.native_group_norm.default", tensor(1, 8, 5, 1), constant(8), None, None),
        call("aten.native_group_norm.default", tensor(1, 8, 5, 1), constant(8), constant(8), None),
        {"not-a-constant": "fails"},
    ),
    (
        call("et_vk.apply_rotary_emb_hf.default", tensor(1, 8, 5, 64), tensor(1, 2, 5, 64), None),
        call("et_vk.apply_rotary_emb_hf.default", tensor(1, 8, 5, 64), tensor(1, 8, 5, 64), None),
        {"rotary-heads-differ": "fails"},
    ),
    (
        call("aten.index.Tensor", tensor(4, 4), ValueList((0, 1)), tensor(4, 1)),
        call("aten.index.Tensor", tensor(4, 4), ValueList((0,)), tensor(1, 4)),
        {"index-later-axis": "fails"},
    ),
    (
        call("aten.gelu.default", tensor(4), String("none"), tensor(4)),
        call("aten.gelu.default", tensor(4), String("tanh"), tensor(4)),
        {"gelu-by-tanh": "note"},
    ),
    (
        call("aten.relu.default", tensor(1, 1, 1, 2, 2), tensor(1, 1, 1, 2, 2)),
        call("aten.relu.default", *[tensor(1, 1, 2, 2, storage=BUFFER)] * 2),
        {"more-than-4-dims": "fails"},
    ),
    (
        call("update_cache.default", tensor(1, 3, 8, 64), tensor(1, 16, 8, 64), Int(0), tensor(1)),
        call("update_cache.default", tensor(1, 4, 8, 64), tensor(1, 16, 8, 64), Int(0), tensor(1)),
        {"rows-behind-zeroed": "depends"},
    ),
    (
        call(
            "update_cache.default", tensor(1, 1, 2, 6), tensor(1, 16, 2, 6, storage=BUFFER), Int(0), tensor(1)
        ),
        call("update_cache.default", tensor(1, 1, 2, 6), tensor(1, 16, 2, 6), Int(0), tensor(1)),
        {"columns-not-multiple-of-4": "fails"},
    ),
    *(
        (
            call(name, *[tensor(dtype=dtype)] * 3),
            call(name, tensor(dtype=dtype), *[tensor(1, dtype=dtype)] * 2),
            {"two-scalars": "fails"},
        )
        for name, dtype in (
            ("aten.mul.Tensor", VkDataType.FLOAT32),
            ("aten.minimum.default", VkDataType.FLOAT32),
            ("aten.logical_and.default", VkDataType.BOOL),
        )
    ),
    *(
        (wrong, right, {"reduce-dims": "fails"})
        for wrong, right in (
            (reduced(None, 3, 4), reduced(None, 4)),
            (reduced((-3, -2, -1), 2, 3, 4), reduced((-3, -2), 2, 3, 4)),
            (reduced((-2,), 3, 4, storage=BUFFER), reduced((-1,), 3, 4, storage=BUFFER)),
            (reduced((-4,), 1, 3, 4, 5), reduced((-3,), 1, 3, 4, 5)),
            (reduced((-3,), 2, 3, 4, 5), reduced((-2,), 2, 3, 4, 5)),
            (reduced((-2, -1), 3, 4), reduced((-1,), 3, 4)),
        )
    ),
    (most(-1, VkStorageType.TEXTURE_3D), most(-1, BUFFER), {"arg-reduce": "fails"}),
    (most(0, BUFFER), most(1, BUFFER), {"arg-reduce": "fails"}),
    (pooled(()), pooled((2, 2)), {"pool-arguments": "fails"}),
    (
        call("et_vk.apply_rotary_emb_hf.default", tensor(1, 8, 5, 64), tensor(1, 8, 5, 32), None),
        call("et_vk.apply_rotary_emb_hf.default", tensor(1, 8, 5, 64), tensor(1, 8, 5, 64), None),
        {"rotary-heads-differ": "fails"},
    ),
    (
        call("torchao.choose_qparams_affine.default", tensor(16, 32), None, IntList((16, 32)), None),
        call("torchao.choose_qparams_affine.default", tensor(16, 32), None, IntList((1, 32)), None),
        {"qparams-not-per-row": "fails"},
    ),
    (
        call("et_vk.linear_q8csw.default", tensor(4, 6), None),
        call("et_vk.linear_q8csw.default", tensor(4, 8), None),
        {"columns-not-multiple-of-4": "fails"},
    ),
    (
        call("et_vk.linear_dq8ca_q4gsw.default", tensor(4, 12), None),
        call("et_vk.linear_dq8ca_q4gsw.default", tensor(4, 16), None),
        {"columns-not-multiple-of-8": "fails"},
    ),
    (
        call(
            "et_vk.apply_rotary_emb_hf.default",
            *[tensor(1, 8, 5, 64)] * 2,
            tensor(8, 12),
            tensor(8, 12),
            None,
        ),
        call(
            "et_vk.apply_rotary_emb_hf.default",
            *[tensor(1, 8, 5, 64)] * 2,
            tensor(8, 16),
            tensor(8, 16),
            None,
        ),
        {"rope-width": "fails"},
    ),
    (
        call(
            "llama.custom_sdpa.default",
            tensor(1, 2047, 32, 8, storage=BUFFER),
            *[tensor(1, 2048, 8, 8, storage=BUFFER)] * 2,
            *(Int(0), None, None, None, None, None),
        ),
        call(
            "llama.custom_sdpa.default",
            tensor(1, 2047, 31, 8, storage=BUFFER),
            *[tensor(1, 2048, 31, 8, storage=BUFFER)] * 2,
            *(Int(0), None, None, None, None, None),
        ),
        {"beyond-largest-buffer": "fails"},
    ),
    (
        call("et_vk.sdpa.default", *[tensor(8, 5, 64)] * 3, None, None, None),
        call("et_vk.sdpa.default", *[tensor(1, 8, 5, 64)] * 3, None, None, None),
        {"sdpa-rank": "fails"},
    ),
    *(
        (
            call("llama.custom_sdpa.default", *[tensor(1, 5, 8, 64)] * 3, Int(0), *given, None),
            call("llama.custom_sdpa.default", *[tensor(1, 5, 8, 64)] * 3, Int(0), *[None] * 4, None),
            {"sdpa-argument": "fails"},
        )
        for given in ((tensor(5, 5), None, None, None), (None, None, None, Double(0.5)))
    ),
    (
        call("aten.div.Tensor_mode", tensor(4), tensor(4), String("trunc"), tensor(4)),
        call("aten.div.Tensor_mode", tensor(4), tensor(4), String("floor"), tensor(4)),
        {"division-always-floored": "wrong"},
    ),
    (
        call(
            "aten.div.Tensor_mode",
            *[tensor(4, dtype=VkDataType.INT32)] * 2,
            String("floor"),
            tensor(4, dtype=VkDataType.INT32),
        ),
        call("aten.div.Tensor_mode", tensor(4), tensor(4), String("floor"), tensor(4)),
        {"division-always-floored": "wrong", "integer-arithmetic": "depends"},
    ),
    (
        call(
            "aten.pow.Tensor_Scalar",
            tensor(4, dtype=VkDataType.INT32),
            Int(1 << 31),
            tensor(4, dtype=VkDataType.INT32),
        ),
        call("aten.pow.Tensor_Scalar", tensor(4), Int(1 << 31), tensor(4)),
        {"number-beyond-32-bits": "fails", "integer-arithmetic": "depends"},
    ),
    (
        call("aten.clamp.default", tensor(4, dtype=VkDataType.INT32), Double(-1.5), None, tensor(4)),
        call("aten.clamp.default", tensor(4), Double(-1.5), None, tensor(4)),
        {"types-not-promoted": "wrong", "integer-arithmetic": "depends"},
    ),
    (
        call("aten.pow.Tensor_Tensor", tensor(4), tensor(4), tensor(4)),
        call("aten.pow.Tensor_Scalar", tensor(4), Int(2), tensor(4)),
        {"pow-of-negative": "depends"},
    ),
    (
        call("aten.add.Tensor", *[tensor(4, dtype=VkDataType.INT32)] * 3),
        call("aten.view_copy.default", *[tensor(4, dtype=VkDataType.INT32)] * 2),
        {"integer-arithmetic": "depends"},
    ),
    (
        call("aten.relu.default", tensor(0, 4), tensor(0, 4)),
        call("aten.relu.default", tensor(1, 4), tensor(1, 4)),
        {"empty-tensor": "fails"},
    ),
]


@pytest.mark.parametrize(
    ("wrong", "right", "expected"),
    WRONG_AND_RIGHT,
    ids=[f"{n}-{next(iter(e[2]))}" for n, e in enumerate(WRONG_AND_RIGHT)],
)
def test_each_rule_fires_on_its_case_and_not_beside_it(wrong, right, expected):
    """A call that the runtime fails on or gets wrong, and its nearest neighbour that is right."""
    assert codes(wrong) == expected
    assert codes(right) == {}


def test_every_rule_has_a_case():
    """Each rule yields something on a wrong call here, on a measured one, or in tests/lower/test_operands.py."""
    calls = [*(case[0] for case in WRONG_AND_RIGHT), *(operands(*call) for call, _ in CALLS)]
    rules = {rule for records in OPERATORS.values() for record in records for rule in record.rules}
    idle = {rule.__name__ for rule in rules if not any(list(rule(made)) for made in calls)}
    assert idle <= {"follows_no_sizes", "keeps_the_order", "row_sums_fit", "one_index"}


@pytest.mark.parametrize("name", [Q4, LINEAR, "aten.native_layer_norm.default", "aten.index.Tensor"])
def test_calls_with_missing_arguments_are_no_crash(name):
    """A file may call an operator with any arguments."""
    for arguments in ((), (None,), (Int(1),) * 6, (tensor(),) * 6, (tensor(), String("x"))):
        made = call(name, *arguments)
        list(shader_names(made))
        codes(made)


HALF = VkDataType.FLOAT16
INT = VkDataType.INT32
BOOL = VkDataType.BOOL


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lookup(), "embedding_q4gsw_float_scales_linear_weight_texture2d_texture3d_float"),
        (
            lookup(scales=constant(64, 2, dtype=HALF)),
            "embedding_q4gsw_linear_weight_texture2d_texture3d_float",
        ),
        (
            lookup(weight=packed(200_000, 32), out=tensor(1, 5, 64, dtype=HALF, storage=BUFFER)),
            "embedding_q4gsw_float_scales_linear_weight_buffer_buffer_half",
        ),
        (
            call(
                Q4,
                packed(64, 32),
                constant(64, 2),
                Int(32),
                indices(1, 5),
                Bool(value=False),
                tensor(1, 5, 64),
            ),
            "embedding_q4gsw_float_scales_texture3d_float",
        ),
        (linear(), "q4gsw_linear_gemm__w_4x8_nc_texture3d_float"),
        (linear(out=tensor(5, 8192)), "q4gsw_linear_gemv_coop__w_4x8_nc_buffer_g8w8_texture3d_float"),
        (linear(source=tensor(5, 64, dtype=HALF)), "q4gsw_linear_gemm__tin__w_4x8_nc_texture3d_float"),
        (call("aten.view_copy.default", tensor(4), None, tensor(2, 2)), "view_texture_float"),
        (call("aten.relu.default", tensor(4), tensor(4)), "clamp_float_texture3d"),
        (
            call("et_vk.prepack.default", constant(4, dtype=HALF), tensor(4, dtype=HALF)),
            "nchw_to_image_texture3d_half_half",
        ),
    ],
)
def test_derived_shaders_exist(made, expected):
    """The name that the runtime asks for, and it is among those that 1.5 has."""
    names = list(shader_names(made))
    assert expected in names
    assert set(names) <= RUNTIME.shaders


@pytest.mark.parametrize(
    ("made", "missing"),
    [
        (
            call("aten.eq.Tensor", *[tensor(4, dtype=INT)] * 2, tensor(4, dtype=BOOL)),
            "binary_eq_texture3d_int32",
        ),
        (
            call(
                "aten._to_copy.default",
                tensor(4, dtype=INT, storage=BUFFER),
                tensor(4, dtype=BOOL, storage=BUFFER),
            ),
            "view_convert_buffer_int32_uint8",
        ),
        (linear(scales=constant(2, 64, dtype=HALF)), "nchw_to_buffer_float_half"),
        (
            call("aten.index.Tensor", tensor(4, dtype=INT), ValueList((0,)), tensor(4, dtype=INT)),
            "index_tensor_texture3d_int32",
        ),
    ],
)
def test_shaders_measured_to_be_missing_are_missed(made, missing):
    """Names that the real runtime was seen to fail on."""
    assert missing in set(shader_names(made)) - RUNTIME.shaders


def test_staging_shaders_exist_for_common_types():
    """Inputs and outputs of the types that programs hand over have their copy shaders."""
    values = [
        tensor(4, dtype=dtype, storage=s)
        for dtype in (INT, HALF, VkDataType.FLOAT32, BOOL)
        for s in (BUFFER, VkStorageType.TEXTURE_3D)
    ]
    tensors = Reader(site(values)).tensors(range(len(values)))
    assert set(border_shaders(tensors, tensors)) <= RUNTIME.shaders
    odd = Reader(site([tensor(4, dtype=VkDataType.INT64)])).tensors((0,))
    assert set(border_shaders(odd, ())).isdisjoint(RUNTIME.shaders)


def test_right_files_have_no_findings(files):
    """What was seen to load and be right on the real runtime is found right."""
    for name in ("fused", "tied", "folded", "mixed", "inline"):
        assert lint(read_pte(files / f"{name}.pte"), "1.5.1") == (), name


def test_wrong_files_have_the_measured_findings(files):
    """Stock's files that fail at load, or are silently wrong, with the reason."""
    unfused = lint(read_pte(files / "unfused.pte"))
    assert [(f.kind, f.name, f.where, f.code, f.effect) for f in unfused] == [
        ("operator", "torchao.dequantize_affine.default", Place("forward", 0), "not-registered", "fails"),
        ("operator", "aten.embedding.default", Place("forward", 0), "not-a-constant", "fails"),
    ]
    (rows,) = lint(read_pte(files / "rows.pte"))
    assert (rows.code, rows.effect) == ("indices-more-than-one-row", "wrong")
    assert "[5, 1]" in rows.hint
    (kernel,) = lint(read_pte(files / "sorted.pte"))
    assert (kernel.kind, kernel.name, kernel.code) == ("cpu-kernel", "aten::sort.values", "no-kernel")
    (external,) = lint(read_pte(files / "external.pte"))
    assert (external.code, external.effect, faults([external])) == ("external-constants", "note", ())


def test_a_large_flat_table_names_its_work_groups():
    """What 65535 groups of 64 bytes copy every GPU takes; of one row more the note says that not every one does."""
    for rows, told in ((65535 * 2, False), (65535 * 2 + 1, True)):
        (note,) = judge(lookup(weight=packed(rows, 32), linear=False), RUNTIME)
        assert ("65,536 work groups" in note.detail) == told


def test_older_runtimes_lack_the_lookup(files):
    """The fused lookup is registered from 1.3 on."""
    pte = read_pte(files / "fused.pte")
    assert [finding.code for finding in lint(pte, "1.2.0")] == ["not-registered"]
    assert lint(pte, "1.3") == lint(pte, "1.4") == ()


def test_runtimes_by_version():
    """Of a minor the newest patch that is known; a newer one is the newest known, with a note; others are refused."""
    assert find_runtime("1.5.1+cpu") is find_runtime("v1.5") is find_runtime("1.5.9")
    assert (find_runtime("1.5.0").version, find_runtime("1.5").version) == ("1.5.0", "1.5.1")
    newer = find_runtime("2.0")
    assert newer.version == "1.5.1"
    assert "newer than any known" in newer.note
    assert find_runtime("1.4").shaders is None
    for version in ("0.7", "latest", "", "1"):
        with pytest.raises(InputError):
            find_runtime(version)


def test_arguments_of_delegate_calls_are_checked(files):
    """What VulkanBackend::execute refuses: another number of arguments, a type that it does not convert."""
    pte = read_pte(files / "fused.pte")
    (method,) = pte.methods
    (delegate_call,) = method.instructions

    def found(**change):
        changed = dataclasses.replace(method, **change)
        return [finding.code for finding in lint(dataclasses.replace(pte, methods=(changed,)))]

    fewer = dataclasses.replace(delegate_call, args=delegate_call.args[:1])
    assert found(instructions=(fewer,)) == ["argument-count"]
    swapped = dataclasses.replace(delegate_call, args=delegate_call.args[::-1])
    assert found(instructions=(swapped,)) == ["boundary-type", "boundary-type"]


def test_kernels_outside_the_portable_library_are_notes(files):
    """An operator of the quantized kernels works where they are linked, which a note says."""
    pte = read_pte(files / "folded.pte")
    (method,) = pte.methods
    (operator,) = method.operators
    renamed = dataclasses.replace(operator, name="quantized_decomposed::embedding_4bit", overload="out")
    changed = dataclasses.replace(method, operators=(renamed,))
    assert lint(dataclasses.replace(pte, methods=(changed,))) == (
        Finding(
            kind="cpu-kernel",
            name="quantized_decomposed::embedding_4bit.out",
            where=Place("forward"),
            code="needs-quantized-kernels",
            hint="link the quantized kernels",
            effect="note",
        ),
    )
    assert cpu_kernels()["aten::embedding.out"] == "portable"
