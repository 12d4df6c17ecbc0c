"""Calls that were measured on the 1.5.0 runtime (main of 2026-08-22, Mesa lavapipe), wrong ones and right neighbours.

`CALLS` are (name, operands by name, output where it counts) and the code, empty where the runtime is right.
"""

from dataclasses import replace

from vkfuse.pte.enums import VkDataType, VkMemoryLayout, VkStorageType
from vkfuse.runtime.operands import Operands, Symbol, Tensor

TEXTURE, BUFFER = (frozenset({kind}) for kind in (VkStorageType.TEXTURE_3D, VkStorageType.BUFFER))
WIDTH, HEIGHT = VkMemoryLayout.TENSOR_WIDTH_PACKED, VkMemoryLayout.TENSOR_HEIGHT_PACKED
CHANNELS = VkMemoryLayout.TENSOR_CHANNELS_PACKED


def _t(*dims, dynamic=(), storages=TEXTURE, layout=WIDTH):
    return Tensor(
        dims=dims, dtype=VkDataType.FLOAT32, storages=storages, layout=layout, dynamic=frozenset(dynamic)
    )


def _conv(source, weight, *, stride=1, padding=0, groups=1, transposed=False):
    rank = len(weight.dims) - 2
    return "aten.convolution.default", {
        "input": source,
        "weight": weight,
        "stride": (stride,) * rank,
        "padding": (padding,) * rank,
        "dilation": (1,) * rank,
        "transposed": transposed,
        "groups": groups,
    }


def _with(call, **given):
    name, operands = call
    return name, {**operands, **given}


def _squeeze(source, *dims):
    return "aten.squeeze_copy.dims", {"self": source, "dim": dims}


def _permute(source, *dims):
    return "aten.permute.default", {"self": source, "dims": dims}


def _truths(name, dtype=VkDataType.BOOL, storages=TEXTURE):
    one, other = (
        replace(_t(*dims, dynamic=[1], storages=storages), dtype=dtype) for dims in ((1, 8, 16), (1, 8, 1))
    )
    return f"aten.{name}", {"self": one, "other": other}


def _norm(source):
    given = {"input": source, "normalized_shape": source.dims[-1:], "weight": _t(1), "bias": _t(1)}
    return "aten.native_layer_norm.default", given


def _softmax(source, dim):
    return "aten._softmax.default", {"self": source, "dim": dim}, source


def _cat(*sources):
    return "aten.cat.default", {"tensors": sources, "dim": -1}, _t(1, 256)


def _nearest(old, new, scales=None):
    given = {"input": _t(1, 4, *old), "output_size": None if scales else new, "scale_factors": scales}
    return "aten.upsample_nearest2d.vec", given, _t(1, 4, *new)


def _where(condition, result, other=None):
    given = {"condition": condition, "self": result, "other": other or result}
    return "aten.where.self", given, result


def _half(*dims, storages=TEXTURE):
    return replace(_t(*dims, storages=storages), dtype=VkDataType.FLOAT16)


def _sum(first, second):
    return "aten.add.Tensor", {"self": first, "other": second}, first


def _not(source):
    truths = replace(source, dtype=VkDataType.BOOL)
    return "aten.bitwise_not.default", {"self": truths}, truths


def _batch_norm(source):
    parts = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), replace(_t(8), constant=True))
    return "aten._native_batch_norm_legit_no_training.default", {"input": source, **parts}, source


def _bytes(source, outputs, name="linear_q8csw", columns=1):
    weight = replace(_t(outputs, source.dims[-1] // columns), dtype=VkDataType.INT8, constant=True)
    scales = replace(_t(outputs), constant=True)
    out = replace(source, dims=(*source.dims[:-1], outputs))
    return f"et_vk.{name}.default", {"input": source, "weight": weight, "scales": scales}, out


def _nibbles(source, outputs):
    return _bytes(source, outputs, "linear_qcs4w", columns=2)


def _by_channel(longest, outputs):
    _, *rest = _bytes(_t(longest, 64, dynamic=[0]), outputs)
    return "aten._weight_int8pack_mm.default", *rest


def _static(name, *dims):
    return _bytes(_t(*dims), 32, name)


def _static_convolution(name, images):
    return f"et_vk.{name}.default", {"input": _t(images, 8, 12, 12)}, _t(images, 8, 12, 12)


def _lookup(layout, storages=TEXTURE):
    out = _t(1, 8, 64, layout=layout, storages=storages)
    return "aten.embedding.default", {"weight": _t(20000, 64), "indices": _t(1, 8, layout=layout)}, out


LONG = _t(1, 8, 32, dynamic=[2])


def _linear(source, output):
    return "aten.linear.default", {"input": source, "weight": _t(96, 64), "bias": None}, output


def _product(name, first, output):
    second = replace(_t(*first.dims[:-2], 64, 96), constant=True)
    return f"aten.{name}.default", {"mat1": first, "mat2": second}, output


def _by_channels(*indices, dynamic=()):
    out = _t(*indices, 8, layout=CHANNELS, dynamic=dynamic)
    given = {"weight": _t(50, 8), "indices": _t(*indices, layout=CHANNELS, dynamic=dynamic)}
    return "aten.embedding.default", given, out


def _bilinear(corners, *dynamic):
    given = {"input": _t(1, 3, 16, 5, dynamic=dynamic), "align_corners": corners, "scale_factors": (2.0, 2.0)}
    return "aten.upsample_bilinear2d.vec", given, _t(1, 3, 32, 10, dynamic=dynamic)


def _group_norm(*dynamic):
    source = _t(4, 8, 6, 6, layout=CHANNELS, dynamic=dynamic)
    return "aten.native_group_norm.default", {"input": source, "weight": _t(8), "bias": _t(8)}, source


def _fused_lookup(indices, output):
    given = {"weight": replace(_t(96, 32), dtype=VkDataType.UINT8, constant=True), "indices": indices}
    scales = replace(_t(96, 2), constant=True)
    return (
        "et_vk.embedding_q4gsw.default",
        {**given, "scales": scales, "group_size": 32, "is_linear_weight": True},
        output,
    )


CALLS = [
    (_conv(LONG, _t(4, 8, 3), padding=1), "padding-lost"),
    (_conv(_t(1, 8, 32), _t(4, 8, 3), padding=1), ""),
    (_conv(LONG, _t(8, 1, 3), padding=1, groups=8), ""),
    (_conv(LONG, _t(4, 8, 1), stride=2), "convolution-arguments"),
    (_conv(LONG, _t(4, 8, 1)), ""),
    (_conv(LONG, _t(4, 2, 1), groups=4), "convolution-groups"),
    (_conv(_t(1, 8, 9, 9), _t(8, 1, 7, 7), padding=3, groups=8), "padding-lost"),
    (_conv(_t(1, 8, 9, 9), _t(8, 1, 5, 5), padding=2, groups=8), ""),
    (_conv(_t(1, 8, 9, 9, dynamic=[2]), _t(8, 1, 3, 3), padding=1, stride=2, groups=8), "padding-lost"),
    (_conv(_t(1, 6, 9, 9), _t(6, 3, 3, 3), groups=2), "convolution-groups"),
    (_conv(_t(1, 8, 9, 9), _t(16, 4, 3, 3), groups=2), ""),
    (_conv(_t(1, 8, 9, 9), _t(16, 4, 1, 1), groups=2), "convolution-groups"),
    (_conv(_t(1, 8, 9, 9), _t(8, 4, 3, 3), groups=2, transposed=True), "convolution-groups"),
    *(
        (_with(_conv(_t(1, 4, 9, 9), _t(*weight)), **{name: (1,)}), "convolution-sizes")
        for name in ("stride", "padding", "dilation")
        for weight in ((4, 4, 3, 3), (4, 4, 1, 1), (128, 4, 3, 3))
    ),
    (_with(_conv(_t(1, 4, 9, 9), _t(4, 4, 3, 3)), dilation=(2, 2)), ""),
    (_with(_conv(_t(1, 4, 9, 9), _t(4, 4, 3, 3), transposed=True), dilation=(2, 2)), "convolution-sizes"),
    (_squeeze(_t(1, 32, 16, dynamic=[1]), 0), "no-resize"),
    (_squeeze(_t(1, 32, 16, dynamic=[1]), -3), "no-resize"),
    (_squeeze(_t(1, 32, 16), 0), ""),
    (_squeeze(_t(1, 32, 1, 16, dynamic=[1]), 2), ""),
    (_squeeze(_t(1, 32, 16, dynamic=[1], storages=BUFFER), 0), ""),
    (_squeeze(_t(1, 32, 16, dynamic=[1], storages=BUFFER), -3), "no-resize"),
    (_truths("bitwise_and.Tensor"), ""),
    (_truths("bitwise_or.Tensor", storages=BUFFER), ""),
    (_truths("logical_or.default"), ""),
    (_truths("bitwise_not.default"), ""),
    (_truths("bitwise_not.default", VkDataType.UINT8), "integer-arithmetic"),
    (_truths("logical_and.default", VkDataType.UINT8), "integer-arithmetic"),
    (_permute(_t(1, 8, 16, dynamic=[1]), 0, 1, -1), "no-resize"),
    (_permute(_t(1, 8, 16), 0, 1, -1), ""),
    (_permute(_t(1, 8, 16, dynamic=[1]), 0, 2, 1), ""),
    (_norm(_t(2, 5, 9)), "layer-norm-width"),
    (_norm(_t(2, 5, 12)), "layer-norm-width"),
    (_norm(_t(2, 5, 8)), ""),
    (_norm(_t(3, 6, 8)), "layer-norm-width"),
    (_norm(_t(8, 6, 8, dynamic=[0])), "layer-norm-width"),
    (_norm(_t(3, 1, 5, 7)), "layer-norm-width"),
    (_norm(_t(3, 1, 64, 2, layout=CHANNELS)), "layer-norm-width"),
    (_norm(_t(1, 5, 9)), ""),
    (_norm(_t(3, 2, 9)), ""),
    (_norm(_t(4, 6, 12)), ""),
    (_norm(_t(3, 6, 20)), ""),
    (_cat(_t(1, 128), replace(_t(1, 128), dtype=VkDataType.INT32)), "types-not-promoted"),
    (_cat(_t(1, 128), _t(1, 128)), ""),
    (_sum(_t(5, 128, storages=BUFFER), _half(storages=BUFFER)), "types-not-promoted"),
    (_sum(_t(5, 128, storages=BUFFER), _t(storages=BUFFER)), ""),
    (_sum(_t(5, 128), _half(5, 128)), ""),
    (_where(_t(1, 32), _t(1, 32, storages=BUFFER), _half(1, 32, storages=BUFFER)), "types-not-promoted"),
    (_not(_t(2, 17, 16, 8, 12, storages=BUFFER)), "more-than-4-dims"),
    (_not(_t(34, 16, 8, 12, storages=BUFFER)), ""),
    (_batch_norm(_t(3, 8, 12)), "batch-norm-shape"),
    (_batch_norm(_t(3, 8, 12, 1)), ""),
    (_softmax(_t(1, 32, 4, 32), 0), "softmax-dim"),
    (_softmax(_t(2, 3, 5, 6), 1), "softmax-dim"),
    (_softmax(_t(2, 3, 5, 6, storages=BUFFER), -3), "softmax-dim"),
    (_softmax(_t(1, 3, 5, 6), 1), ""),
    (_softmax(_t(2, 3, 5, 6), 2), ""),
    (_softmax(_t(3, 5, 6), 0), ""),
    (_norm(_t(10, 9)), ""),
    (_norm(_t(2, 5, 9, storages=BUFFER)), ""),
    (_nearest((8, 8), (16, 24)), ""),
    (_with(_bilinear(False, 2)[:2], scale_factors=None, output_size=(32, 10)), "no-resize"),
    (_with(_bilinear(False)[:2], scale_factors=None, output_size=(32, 10)), ""),
    (_nearest((8, 8), (11, 8)), "nearest-by-centre"),
    (_nearest((7, 8), (10, 12), (1.5, 1.5)), "upsample-scales"),
    (_where(_t(32, 32), _t(1, 32, 32, dynamic=[1, 2])), "condition-rank"),
    (_where(_t(32, 32), _t(1, 32, 32)), ""),
    (_where(_t(1, 32, 32), _t(1, 32, 32, dynamic=[1, 2])), ""),
    (_lookup(HEIGHT), "rows-across-texels"),
    (_lookup(WIDTH), ""),
    (_lookup(HEIGHT, BUFFER), ""),
    *((_by_channels(*indices), "") for indices in ((4, 5), (2, 4, 5), (6, 4, 5), (5,))),
    *((_by_channels(*indices), "rows-across-texels") for indices in ((5, 5), (2, 5, 5), (1, 8, 5))),
    (_by_channels(3, 3, dynamic=[1]), "no-resize"),
    (_bilinear(True), ""),
    (_bilinear(False, 1, 2), ""),
    (_bilinear(True, 1, 2), "no-resize"),
    (_group_norm(2), ""),
    (_group_norm(0), "no-resize"),
    (_bytes(_t(5, 64), 64), ""),
    (_bytes(_t(1, 5, 64, storages=BUFFER), 64), ""),
    (_bytes(_t(5, 64), 61), ""),
    (_bytes(_t(5, 64, storages=BUFFER), 61), "rows-not-multiple-of-4"),
    (_bytes(_t(5, 64, storages=BUFFER), 62), "rows-not-multiple-of-4"),
    (_bytes(_t(2, 5, 64), 64), "linear-input-batched"),
    (_bytes(_t(5, 6), 64), "columns-not-multiple-of-4"),
    (_nibbles(_t(12, 64), 32), ""),
    (_nibbles(_t(15, 64, dynamic=[0]), 1024), "rows-left-out"),
    (_by_channel(15, 1024), "rows-left-out"),
    (_by_channel(15, 64), ""),
    (_by_channel(16, 1024), ""),
    (_static("q8ta_linear", 2, 8, 64), "linear-input-batched"),
    *(
        (_static_convolution(name, images), code)
        for name in ("q8ta_conv2d", "q8ta_conv2d_dw", "q8ta_conv2d_pw")
        for images, code in ((1, ""), (2, "convolution-batched"))
    ),
    (_static("q8ta_linear", 5, 64), ""),
    (_static("q8ta_linear_gemv", 2, 1, 64), "linear-input-batched"),
    (_static("q8ta_linear_gemv", 1, 64), ""),
    (_nibbles(_t(1, 64), 10), "rows-not-multiple-of-4"),
    (_nibbles(_t(5, 64, storages=BUFFER), 30), "rows-not-multiple-of-4"),
    (_nibbles(_t(5, 62), 32), "columns-not-multiple-of-4"),
    (_linear(_t(2, 3, 8, 64), _t(2, 3, 8, 96)), "linear-input-batched"),
    (_linear(_t(2, 1, 8, 64, storages=BUFFER), _t(2, 1, 8, 96, storages=BUFFER)), "linear-input-batched"),
    (_linear(_t(1, 3, 8, 64), _t(1, 3, 8, 96)), ""),
    (_linear(_t(2, 16, 64), _t(2, 16, 96)), ""),
    (_linear(_t(16, 64, layout=HEIGHT), _t(16, 96)), "packed-otherwise"),
    (_linear(_t(16, 64), _t(16, 96, layout=CHANNELS)), "packed-otherwise"),
    (_linear(_t(16, 64), _t(16, 96, storages=BUFFER)), ""),
    (_linear(_t(16, 64, storages=BUFFER), _t(16, 96)), "packed-otherwise"),
    (
        _product("mm", _t(16, 64, storages=BUFFER, layout=HEIGHT), _t(16, 96, storages=BUFFER)),
        "packed-otherwise",
    ),
    (_product("addmm", _t(16, 64), _t(16, 96, layout=HEIGHT)), "packed-otherwise"),
    (_product("bmm", _t(2, 16, 64, layout=CHANNELS), _t(2, 16, 96)), "packed-otherwise"),
    (_product("bmm", _t(2, 16, 64), _t(2, 16, 96)), ""),
    (_bytes(_t(16, 64, layout=HEIGHT), 96), "packing-ignored"),
    (_bytes(_t(1, 64, layout=CHANNELS), 96), "packing-ignored"),
    (_bytes(_t(16, 64, storages=BUFFER, layout=HEIGHT), 96), "packing-ignored"),
    (("floordiv", {"self": Symbol(), "other": Symbol()}), "divisor-not-known"),
    (("floordiv", {"self": Symbol(), "other": 2}), ""),
    (_fused_lookup(_t(1, 7), _t(1, 7, 64)), ""),
    (_fused_lookup(_t(1, 7, layout=HEIGHT), _t(1, 7, 64)), "packed-otherwise"),
    (_fused_lookup(_t(1, 7), _t(1, 7, 64, layout=CHANNELS)), "packed-otherwise"),
]


def operands(name, values, output=None):
    """What a rule is asked about."""
    return Operands(operator=name, values=values, output=output)
