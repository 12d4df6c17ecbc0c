"""What the Vulkan runtime fails on, or computes wrongly, beyond missing operators and shaders.

Each rule looks at one call and yields findings; `RULES` is the order. Sources are files of backends/vulkan in
ExecuTorch 1.5 (runtime/graph/ops/impl unless said otherwise); "measured" means run on the 1.5.0 runtime.
"""

from collections.abc import Callable, Iterator
from typing import Final

from vkfuse.pte.calls import Call, rows
from vkfuse.pte.enums import VkStorageType
from vkfuse.pte.findings import Finding
from vkfuse.pte.vulkan import VkTensor

Rule = Callable[[Call], Iterator[Finding]]

EMBEDDING: Final = "et_vk.embedding_q4gsw.default"
LINEARS: Final = ("et_vk.linear_q4gsw.default", "et_vk.q4gsw_linear.default")
LINEAR_8DA4W: Final = "et_vk.linear_dq8ca_q4gsw.default"
CHOOSE_QPARAMS: Final = "torchao.choose_qparams_affine.default"
LAYER_NORM: Final = "aten.native_layer_norm.default"
GROUP_NORM: Final = "aten.native_group_norm.default"
ROTARY: Final = ("et_vk.apply_rotary_emb.default", "et_vk.apply_rotary_emb_hf.default")

REDUCTIONS: Final = ("aten.sum.dim_IntList", "aten.mean.dim", "aten.amax.default", "aten.amin.default")
ARG_REDUCTIONS: Final = ("aten.argmax.default", "aten.argmin.default")
BINARY: Final = frozenset(  # BinaryOp.cpp, REGISTER_OPERATORS
    (
        *(f"aten.{name}.Tensor" for name in ("add", "sub", "mul", "div", "eq", "lt", "le", "gt", "ge")),
        *("aten.div.Tensor_mode", "aten.pow.Tensor_Tensor", "aten.minimum.default"),
        *("aten.bitwise_and.Tensor", "aten.bitwise_or.Tensor"),
        *("aten.logical_and.default", "aten.logical_or.default"),
    )
)
POOL_SIZES: Final = {  # arguments of a height and a width each
    "aten.avg_pool2d.default": (1, 2, 3),
    "aten.max_pool2d.default": (1, 2, 3, 4),
    "aten.max_pool2d_with_indices.default": (1, 2, 3, 4),
}
_LOCAL_SIZE, _WORK_GROUPS = 64, 65535  # of a copy to a buffer; the least maxComputeWorkGroupCount
_CHANNELS, _BATCH = 2, 3  # axes of a texture, counted from the width

_GROUP_ARGUMENT: Final = {EMBEDDING: 2, **dict.fromkeys(LINEARS, 3), LINEAR_8DA4W: 6}
_WEIGHT_ARGUMENT: Final = {EMBEDDING: 0, **dict.fromkeys(LINEARS, 1), LINEAR_8DA4W: 3}

# Arguments that reach prepack_standard or a PrepackNode, which take constants only.
_CONSTANTS: Final[dict[str, tuple[int, ...]]] = {
    EMBEDDING: (0, 1),
    **dict.fromkeys(LINEARS, (1, 2, 4)),
    LINEAR_8DA4W: (3, 4, 5, 7),
    "et_vk.linear_q8csw.default": (1, 2, 3),
    "et_vk.linear_q8ta_q8csw.default": (3, 4, 5, 6),
    "et_vk.prepack.default": (0,),
    "et_vk.rms_norm.default": (1,),
    "aten.embedding.default": (0,),
    "aten.linear.default": (1, 2),
    "aten.native_layer_norm.default": (2, 3),
    "aten.native_group_norm.default": (1, 2),
}


def constants_are_constant(call: Call) -> Iterator[Finding]:
    """Staging.cpp, prepack_standard: weights, scales and biases must be constants, not inputs or results."""
    for position in _CONSTANTS.get(call.name, ()):
        tensor = call.tensor(position)
        if tensor and not tensor.constant:
            hint = f"argument {position} is computed or an input; fold it to a constant"
            yield call.finding("not-a-constant", "fails", hint)


def columns_multiple_of_32(call: Call) -> Iterator[Finding]:
    """EmbeddingQ4gsw.cpp: embed_dim % 32 == 0."""
    weight = call.tensor(0)
    if call.name == EMBEDDING and weight and weight.dims and weight.dims[-1] * 2 % 32:
        hint = f"{weight.dims[-1] * 2} columns; pad them to a multiple of 32"
        yield call.finding("columns-not-multiple-of-32", "fails", hint)


def flat_weight_is_copied_by_bytes(call: Call) -> Iterator[Finding]:
    """EmbeddingQ4gsw.cpp copies a flat weight with one invocation a byte (nchw_to_buffer), 64 in a work group.

    api/Context.cpp throws without 8-bit storage; the number of work groups is not checked.
    """
    weight = call.tensor(0)
    if call.name != EMBEDDING or call.flag(4) is not False or weight is None:
        return
    hint = "a flat table; GPUs without storageBuffer8BitAccess (Adreno 6xx) fail at load"
    groups = -(-weight.nbytes // _LOCAL_SIZE)
    if groups > _WORK_GROUPS:
        hint += f"; {groups:,} work groups copy it, not every GPU takes more than {_WORK_GROUPS:,}"
    yield call.finding("needs-8-bit-storage", "note", f"{hint}; --lookup-layout linear needs neither")


def group_multiple_of_4(call: Call) -> Iterator[Finding]:
    """ops/glsl/embedding_q4gsw.glsl and the linears read one scale for 4 values (measured: 0.45-0.84 off)."""
    if call.name not in _GROUP_ARGUMENT:
        return
    group = call.integer(_GROUP_ARGUMENT[call.name])
    if group is not None and (group < 4 or group % 4):
        yield call.finding("group-not-multiple-of-4", "wrong", f"groups of {group}; quantize in groups of 32")


def group_divides_columns(call: Call) -> Iterator[Finding]:
    """ops/glsl/embedding_q4gsw.glsl: a row has D / group_size scales."""
    if call.name not in _GROUP_ARGUMENT:
        return
    weight, group = call.tensor(_WEIGHT_ARGUMENT[call.name]), call.integer(_GROUP_ARGUMENT[call.name])
    if weight and weight.dims and group and group > 0 and weight.dims[-1] * 2 % group:
        hint = f"{weight.dims[-1] * 2} columns in groups of {group}"
        yield call.finding("group-does-not-divide-columns", "wrong", hint)


def indices_in_one_row(call: Call) -> Iterator[Finding]:
    """ops/glsl/embedding_q4gsw.glsl reads row 0 of an index texture (measured: off by 1.1x the largest)."""
    indices = call.tensor(3)
    if call.name == EMBEDDING and indices and not _in_buffer(call, indices) and rows(indices.dims) > 1:
        hint = f"indices {list(indices.dims)} in a texture; flatten them to one row"
        yield call.finding("indices-more-than-one-row", "wrong", hint)


def indices_stored_as_output(call: Call) -> Iterator[Finding]:
    """ops/glsl/embedding_q4gsw.glsl declares indices with the output's storage."""
    indices, out = call.tensor(3), call.tensor(-1)
    if call.name == EMBEDDING and indices and out and _in_buffer(call, indices) != _in_buffer(call, out):
        hint = "indices and output must both be buffers or both textures"
        yield call.finding("indices-stored-unlike-output", "wrong", hint)


def linear_input_in_two_dims(call: Call) -> Iterator[Finding]:
    """Q4gswLinear.cpp: global sizes come from the last two dims (measured: [2, 16, 128] is off by 1.0)."""
    source = call.tensor(0)
    if call.name in LINEARS and source and rows(source.dims[:-1]) > 1:
        hint = f"input {list(source.dims)}; reshape it to two dimensions"
        yield call.finding("linear-input-batched", "wrong", hint)


def rows_multiple_of_4(call: Call) -> Iterator[Finding]:
    """Q4gswLinear.cpp, prepack_q4_w_4x8_nc_buffer: N % 4 == 0 and K % 4 == 0."""
    weight = call.tensor(1)
    if call.name in LINEARS and weight and len(weight.dims) == 2 and weight.dims[0] % 4:
        hint = f"{weight.dims[0]} output features; pad the weight's rows to a multiple of 4 and slice"
        yield call.finding("rows-not-multiple-of-4", "fails", hint)


def quantized_input_in_two_dims(call: Call) -> Iterator[Finding]:
    """ChooseQParams.cpp, can_use_choose_qparams_per_row: a contiguous matrix, width % 4 == 0 in a buffer."""
    source = call.tensor(0)
    if call.name != CHOOSE_QPARAMS or source is None:
        return
    if rows(source.dims[:-1]) > 1:
        hint = f"input {list(source.dims)}; reshape it to two dimensions"
        yield call.finding("quantized-input-batched", "fails", hint)
    elif _in_buffer(call, source) and source.dims and source.dims[-1] % 4:
        hint = f"{source.dims[-1]} columns; pad them to a multiple of 4"
        yield call.finding("columns-not-multiple-of-4", "fails", hint)


def one_row_is_not_quantized(call: Call) -> Iterator[Finding]:
    """QuantizedLinear.cpp: a single row is multiplied without quantizing it (measured: 0.4-1% off eager)."""
    source = call.tensor(0)
    if call.name == LINEAR_8DA4W and source and rows(source.dims) == 1:
        yield call.finding("one-row-not-quantized", "note", "the activation stays float for a single row")


def layer_norm_has_bias(call: Call) -> Iterator[Finding]:
    """NativeLayerNorm.cpp: requires bias to be non-None."""
    if call.name == LAYER_NORM and call.value(3) is None:
        yield call.finding("layer-norm-without-bias", "fails", "give it a bias of zeros")


def layer_norm_of_rows(call: Call) -> Iterator[Finding]:
    """NativeLayerNorm.cpp: over the last dimension."""
    shape = call.integers(1) if call.name == LAYER_NORM else None
    if shape is not None and len(shape) != 1:
        yield call.finding("layer-norm-shape", "fails", f"over {len(shape)} dimensions; flatten them to one")


def group_norm_of_images(call: Call) -> Iterator[Finding]:
    """GroupNorm.cpp: NaN for anything but [batch, channels, height, width] (measured)."""
    source = call.tensor(0) if call.name == GROUP_NORM else None
    if source is not None and len(source.dims) != 4:
        yield call.finding(
            "group-norm-shape", "wrong", f"of {list(source.dims)}; add a last dimension of one"
        )


def rotary_heads_agree(call: Call) -> Iterator[Finding]:
    """RotaryEmbedding.cpp: size(-3) of q and k must be equal, which grouped-query attention breaks."""
    query, key = call.tensor(0), call.tensor(1)
    if call.name not in ROTARY or not (query and key) or min(len(query.dims), len(key.dims)) < 3:
        return
    if query.dims[-3] != key.dims[-3]:
        hint = f"q has {query.dims[-3]}, k has {key.dims[-3]} in dimension -3; keep rotary embeddings unfused"
        yield call.finding("rotary-heads-differ", "fails", hint)


def one_index_tensor(call: Call) -> Iterator[Finding]:
    """IndexTensor.cpp: one index, along dimension 0 (`a[:, idx]` has two entries, the first None)."""
    members = call.members(1)
    if call.name == "aten.index.Tensor" and members is not None and len(members) != 1:
        yield call.finding("index-later-axis", "fails", "use index_select, or keep it on the CPU")


def gelu_is_tanh(call: Call) -> Iterator[Finding]:
    """UnaryOp.cpp: gelu is computed with tanh whatever `approximate` says (measured: 5e-4 off)."""
    if call.name == "aten.gelu.default" and call.text(1) not in (None, "tanh"):
        yield call.finding("gelu-by-tanh", "note", "up to 5e-4 off; use approximate='tanh' to agree")


def at_most_four_dims(call: Call) -> Iterator[Finding]:
    """runtime/api/containers/Tensor.cpp: sizes of textures, and of any tensor passed as a UBO, are ivec4."""
    for tensor in call.tensors():
        if len(tensor.dims) > 4 and (call.name == EMBEDDING or not _in_buffer(call, tensor)):
            hint = f"{list(tensor.dims)}; reshape to at most 4 dimensions"
            yield call.finding("more-than-4-dims", "fails", hint)


def an_operand_has_a_dimension(call: Call) -> Iterator[Finding]:
    """utils/TensorUtils.cpp, calculate_broadcasted_output_size: one of two operands (measured: x * 2, x a scalar)."""
    first, second = call.tensor(0), call.tensor(1)
    if call.name in BINARY and first and second and not first.dims and not second.dims:
        hint = "both operands have no dimensions; keep arithmetic on single numbers on the CPU"
        yield call.finding("two-scalars", "fails", hint)


def reduces_axes_of_a_texture(call: Call) -> Iterator[Finding]:
    """Reduce.cpp: one or two axes, not the batch, nor channels in a batch, nor (of two) the packed one (measured)."""
    source, out = call.tensor(0), call.tensor(-1)
    if call.name not in REDUCTIONS or source is None or out is None:
        return
    problem = _unreduced(call, source, out)
    if problem:
        yield call.finding("reduce-dims", "fails", f"{problem}; keep it on the CPU")


def _unreduced(call: Call, source: VkTensor, out: VkTensor) -> str:
    """Say why a reduction is not built, nothing where it is."""
    dims, rank = call.integers(1), len(source.dims)
    if dims is None:
        return "all dimensions of a tensor of several" if call.value(1) is None and rank != 1 else ""
    if len(dims) not in {1, 2}:
        return f"{len(dims)} dimensions, not one or two"
    axes = [(rank - 1 - dim) % max(1, rank) for dim in dims]
    if dims in ((-1,), (rank - 1,)) and _in_buffer(call, source):
        return ""
    if _in_buffer(call, source) or _in_buffer(call, out):
        return "a buffer, of which only rows are reduced"
    packed = {int(source.layout), int(out.layout)} if len(dims) > 1 else set()
    batched = {_BATCH, _CHANNELS} if rank > _BATCH and source.dims[0] > 1 else {_BATCH}
    unfit = (packed | batched) & {*axes}
    return f"dimensions {list(dims)} of {list(source.dims)}" if unfit else ""


def arg_reduces_rows_of_a_buffer(call: Call) -> Iterator[Finding]:
    """ArgReduce.cpp: the last dimension of a buffer."""
    source = call.tensor(0)
    if call.name not in ARG_REDUCTIONS or source is None:
        return
    dim = 0 if call.value(1) is None else call.integer(1)
    if not _in_buffer(call, source) or (
        dim is not None and dim % max(1, len(source.dims)) != len(source.dims) - 1
    ):
        hint = f"dimension {dim} of {list(source.dims)}; only rows of a buffer; keep it on the CPU"
        yield call.finding("arg-reduce", "fails", hint)


def pool_sizes_are_pairs(call: Call) -> Iterator[Finding]:
    """utils/KernelUtils.cpp, make_ivec2_from_list: two numbers for the kernel, stride and so on (measured: stride=[])."""
    for position in POOL_SIZES.get(call.name, ()):
        sizes = call.integers(position)
        if sizes is not None and len(sizes) != 2:
            hint = f"argument {position} is {list(sizes)}; give a height and a width, the stride too"
            yield call.finding("pool-arguments", "fails", hint)


def _in_buffer(call: Call, tensor: VkTensor) -> bool:
    """Whether a tensor is stored in a buffer."""
    return call.site.storage(tensor) is VkStorageType.BUFFER


RULES: Final[tuple[Rule, ...]] = (
    constants_are_constant,
    columns_multiple_of_32,
    flat_weight_is_copied_by_bytes,
    group_multiple_of_4,
    group_divides_columns,
    indices_in_one_row,
    indices_stored_as_output,
    linear_input_in_two_dims,
    rows_multiple_of_4,
    quantized_input_in_two_dims,
    one_row_is_not_quantized,
    layer_norm_has_bias,
    layer_norm_of_rows,
    group_norm_of_images,
    rotary_heads_agree,
    one_index_tensor,
    gelu_is_tanh,
    at_most_four_dims,
    an_operand_has_a_dimension,
    reduces_axes_of_a_texture,
    arg_reduces_rows_of_a_buffer,
    pool_sizes_are_pairs,
)
