"""Small programs, and what the installed ExecuTorch makes of them: some right, some wrong, some not loadable.

`EXPECTED` is what ExecuTorch's own Vulkan runtime (1.5.0, on a software driver) did with each file.
"""

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from executorch.backends.vulkan import patterns as vulkan_patterns
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import to_edge_transform_and_lower
from stock_programs import (
    Attention,
    FloatView,
    Lookup,
    OwnCaches,
    PerChannel,
    PickColumns,
    ScalesGiven,
    as_linear,
    as_lookup,
    as_matmul,
    by_channel,
    bytes_minus_4,
    channels_last,
    dequantized,
    doubled_scales,
    dynamic_linear,
    float_head,
    half,
    int4,
    linear,
    lookup,
    matrix,
    of,
    other_zeros,
    own_zero_point,
    rows,
    tied_apart,
    tied_head_first,
    values_minus_4,
    view_of_scales,
    view_of_values,
    wide_zeros,
    zero_points,
    zeros_plus_3,
    zeros_plus_3_linear,
)
from torch import nn
from torch.export import Dim, ExportedProgram, export
from torchao.quantization import (
    Int8DynamicActivationIntxWeightConfig,
    IntxWeightOnlyConfig,
)
from torchao.quantization.granularity import PerAxis, PerGroup

Expected = Literal["right", "wrong", "not-loadable"]
_SLOW_TEMPLATES = ("rope",)  # exported anew for every program; none has rotary embeddings here


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A program and the verdict on its stock file; `operator` is to blame for a wrong or unloadable one."""

    name: str
    build: Callable[[], tuple[nn.Module, tuple[Any, ...]]]
    expected: Expected
    operator: str = ""
    dynamic: Any = None
    code: str = ""  # of the behaviour or finding that says why
    prepare: Callable[[ExportedProgram], ExportedProgram] = lambda exported: exported


def program_of(case: Case) -> tuple[nn.Module, tuple[Any, ...], ExportedProgram]:
    """Build and export a case, always with the same numbers."""
    torch.manual_seed(0)
    module, inputs = case.build()
    exported = export(module.eval(), inputs, dynamic_shapes=case.dynamic, strict=False)
    return module, inputs, case.prepare(exported)


def stock_file(exported: ExportedProgram, *, half: bool = False) -> bytes:
    """Lower as `to_edge_transform_and_lower(ep, partitioner=[VulkanPartitioner()])` does, computing in half if asked."""
    kept = dict(vulkan_patterns.fusable_patterns)
    try:
        for name in kept:
            if any(slow in str(name) for slow in _SLOW_TEMPLATES):
                del vulkan_patterns.fusable_patterns[name]
        partitioner = VulkanPartitioner({"force_fp16": True} if half else None)
        edge = to_edge_transform_and_lower(copy.deepcopy(exported), partitioner=[partitioner])
        stream = io.BytesIO()
        edge.to_executorch().write_to_file(stream)
    finally:
        vulkan_patterns.fusable_patterns.clear()
        vulkan_patterns.fusable_patterns.update(kept)
    return stream.getvalue()


LOOKUP, LINEAR = "et_vk.embedding_q4gsw.default", "et_vk.linear_q4gsw.default"
QPARAMS, DEQUANTIZE = "torchao.choose_qparams_affine.default", "torchao.dequantize_affine.default"
CASES: tuple[Case, ...] = (
    Case(name="lookup", build=lookup((1, 8)), expected="right"),
    Case(
        name="lookup-dynamic",
        build=lookup((1, 8)),
        expected="right",
        dynamic=({1: Dim("length", min=1, max=32)},),
    ),
    Case(name="lookup-per-axis", build=lookup((1, 8), int4(PerAxis(0))), expected="right"),
    Case(name="lookup-group-4", build=lookup((1, 8), int4(PerGroup(4))), expected="right"),
    Case(name="lookup-1d", build=lookup((8,)), expected="right"),
    Case(
        name="lookup-dynamic-batch",
        build=lookup((2, 8)),
        expected="wrong",
        operator=LOOKUP,
        code="indices-more-than-one-row",
        dynamic=({0: Dim("batch", min=1, max=4), 1: Dim("length", min=1, max=32)},),
    ),
    Case(name="lookup-two-rows", build=lookup((2, 8)), expected="wrong", operator=LOOKUP),
    Case(name="lookup-3d", build=lookup((2, 3, 8)), expected="wrong", operator=LOOKUP),
    Case(name="lookup-4d", build=lookup((2, 2, 3, 8)), expected="not-loadable", operator=LOOKUP),
    Case(name="lookup-group-2", build=lookup((1, 8), int4(PerGroup(2))), expected="wrong", operator=LOOKUP),
    Case(
        name="lookup-group-3",
        build=lookup((1, 8), int4(PerGroup(3)), columns=96),
        expected="wrong",
        operator=LOOKUP,
        code="group-not-multiple-of-4",
    ),
    Case(
        name="lookup-group-6",
        build=lookup((1, 8), int4(PerGroup(6)), columns=96),
        expected="wrong",
        operator=LOOKUP,
    ),
    Case(
        name="lookup-int8",
        build=lookup((1, 8), IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))),
        expected="not-loadable",
        operator=DEQUANTIZE,
    ),
    Case(
        name="lookup-int2",
        build=lookup((1, 8), IntxWeightOnlyConfig(weight_dtype=torch.int2, granularity=PerGroup(32))),
        expected="not-loadable",
        operator=DEQUANTIZE,
    ),
    Case(
        name="linear-int8",
        build=linear((16, 128), IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))),
        expected="not-loadable",
        operator=DEQUANTIZE,
    ),
    *(
        Case(
            name=f"{name}-decomposed",
            build=build,
            prepare=ExportedProgram.run_decompositions,
            expected="not-loadable",
            code="not-a-constant",
        )
        for name, build in (("lookup", lookup((1, 8))), ("linear", linear((16, 128))))
    ),
    Case(name="float-head", build=float_head, expected="right"),
    Case(
        name="lookup-40-columns",
        build=lookup((1, 8), int4(PerGroup(8)), columns=40),
        expected="not-loadable",
        operator=DEQUANTIZE,
    ),
    Case(name="linear-one-matrix", build=linear((1, 16, 128)), expected="right"),
    Case(name="linear-rows", build=linear((32, 128), bias=True), expected="right"),
    Case(name="linear-one-row", build=linear((1, 128)), expected="right"),
    Case(name="linear-two-matrices", build=linear((2, 16, 128)), expected="wrong", operator=LINEAR),
    Case(name="linear-4d", build=linear((2, 3, 16, 128)), expected="wrong", operator=LINEAR),
    Case(name="8da4w", build=dynamic_linear((1, 16, 128)), expected="right"),
    Case(name="8da4w-one-row", build=dynamic_linear((1, 1, 128)), expected="right"),
    Case(
        name="8da4w-two-matrices",
        build=dynamic_linear((2, 16, 128)),
        expected="not-loadable",
        operator=QPARAMS,
    ),
    Case(name="tied-apart", build=tied_apart, expected="right"),
    Case(name="tied-head-first", build=tied_head_first, expected="wrong", operator=LOOKUP),
    Case(name="half-lookup", build=half(Lookup, lambda: torch.randint(0, 100, (1, 8))), expected="right"),
    Case(
        name="half-linear",
        build=half(
            lambda: nn.Sequential(nn.Linear(128, 64, bias=False)), lambda: torch.randn(16, 128).half()
        ),
        expected="right",
    ),
    Case(
        name="index-select",
        build=dequantized(lambda x, weight, _: weight.index_select(0, x[0]), rows),
        expected="not-loadable",
        operator=DEQUANTIZE,
    ),
    *(
        Case(name=name, build=dequantized(use, rows), expected="not-loadable", operator=DEQUANTIZE)
        for name, use in (
            ("index", lambda x, weight, _: weight[x]),
            ("gather", lambda x, weight, _: weight.gather(0, x.reshape(-1, 1).expand(-1, 64))),
        )
    ),
    Case(
        name="per-channel-lookup",
        build=lambda: (PerChannel(nn.functional.embedding), (rows(),)),
        expected="not-loadable",
        operator="quantized_decomposed.dequantize_per_channel.default",
    ),
    Case(
        name="per-channel-linear",
        build=lambda: (PerChannel(nn.functional.linear), (torch.randn(2, 5, 128),)),
        expected="right",
    ),
    Case(
        name="zero-points",
        build=dequantized(as_linear, matrix, zero_points),
        expected="wrong",
        operator=LINEAR,
    ),
    Case(name="square-matmul", build=dequantized(as_matmul, matrix), expected="wrong", operator=LINEAR),
    Case(name="doubled-scales", build=dequantized(doubled_scales, rows), expected="wrong", operator=LOOKUP),
    Case(
        name="zero-points-plus-3",
        build=dequantized(zeros_plus_3, rows, wide_zeros),
        expected="wrong",
        operator=LOOKUP,
    ),
    Case(
        name="zero-points-plus-3-linear",
        build=dequantized(zeros_plus_3_linear, matrix, wide_zeros),
        expected="wrong",
        operator=LINEAR,
    ),
    Case(name="values-minus-4", build=dequantized(values_minus_4, rows), expected="wrong", operator=LOOKUP),
    Case(  # constants of 8 bits are computed on the CPU, and are inputs that the delegate does not declare
        name="zero-points-plus-3-in-bytes",
        build=dequantized(zeros_plus_3, rows),
        expected="not-loadable",
        code="argument-count",
    ),
    Case(
        name="values-minus-4-in-bytes",
        build=dequantized(bytes_minus_4, rows),
        expected="not-loadable",
        code="argument-count",
    ),
    Case(
        name="own-zero-point",
        build=dequantized(own_zero_point, rows, other_zeros),
        expected="wrong",
        operator=LOOKUP,
    ),
    Case(
        name="view-of-scales",
        build=dequantized(as_lookup, rows, view_of_scales),
        expected="wrong",
        operator=LOOKUP,
    ),
    Case(name="view-of-values", build=dequantized(as_lookup, rows, view_of_values), expected="right"),
    Case(
        name="view-of-scales-linear",
        build=dequantized(as_linear, matrix, view_of_scales),
        expected="right",
    ),
    Case(
        name="view-of-floats",
        build=lambda: (FloatView(), (torch.randn(5, 64),)),
        expected="wrong",
        operator="aten.linear.default",
    ),
    Case(
        name="scales-given",
        build=lambda: (ScalesGiven(), (rows(), torch.rand(64, 2))),
        expected="not-loadable",
        operator=LOOKUP,
    ),
    Case(
        name="8da8w",
        build=linear(
            (1, 16, 128),
            Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int8, weight_granularity=PerAxis(0)),
        ),
        expected="not-loadable",
    ),
    Case(
        name="attention",
        build=lambda: (Attention(), tuple(torch.randn(1, 2, 8, 16) for _ in range(3))),
        expected="not-loadable",
        operator="aten.logical_not.default",
    ),
    Case(
        name="columns-by-index", build=lambda: (PickColumns(), (torch.randn(2, 5),)), expected="not-loadable"
    ),
    Case(name="rms-norm", build=lambda: (nn.RMSNorm(64), (torch.randn(2, 8, 64),)), expected="right"),
    Case(name="gelu", build=lambda: (nn.GELU(), (torch.randn(2, 64),)), expected="right"),
    Case(
        name="float-linears",
        build=lambda: (
            nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 33)),
            (torch.randn(2, 5, 64),),
        ),
        expected="right",
    ),
    Case(
        name="weight-expression",
        build=of(lambda x, w: nn.functional.linear(x, w * 2 + 1), torch.ones(5, 64), weight=(32, 64)),
        expected="not-loadable",
        code="not-a-constant",
    ),
    Case(
        name="layer-norm-without-bias",
        build=lambda: (nn.LayerNorm(64, bias=False), (torch.randn(2, 64),)),
        expected="not-loadable",
        code="layer-norm-without-bias",
    ),
    Case(
        name="channels-last",
        build=channels_last(nn.functional.conv2d, 4, 3, 3, 3),
        expected="wrong",
        operator="aten.convolution.default",
        code="dim-order-ignored",
    ),
    Case(
        name="channels-last-mean",
        build=channels_last(lambda x: x.mean(-1)),
        expected="wrong",
        operator="aten.mean.dim",
        code="dim-order-ignored",
    ),
    Case(
        name="to-channels-last",
        build=of(lambda x: (x * 2).to(memory_format=torch.channels_last), torch.rand(1, 3, 4, 5)),
        expected="wrong",
        operator="copy",
        code="dim-order-ignored",
    ),
    Case(name="channels-last-elementwise", build=channels_last(lambda x: x * 2 + 1), expected="right"),
    Case(
        name="two-scalars",
        build=of(lambda x: x * 2, torch.tensor(0.7)),
        expected="not-loadable",
        code="two-scalars",
    ),
    *(
        Case(name=name, build=of(function, torch.rand(2, 3, 4, 5)), expected="not-loadable", code=code)
        for name, function, code in (
            ("sum-of-batch", lambda x: x.sum(0, keepdim=True), "reduce-dims"),
            ("sum-of-channels", lambda x: x.sum(1, keepdim=True), "reduce-dims"),
            ("argmax-of-texture", lambda x: x.argmax(-1, keepdim=True), "arg-reduce"),
            ("pool-without-stride", lambda x: nn.functional.avg_pool2d(x, 2), "pool-arguments"),
        )
    ),
    *(
        Case(name=name, build=of(function, torch.rand(2, 3, 4, 5)), expected="right")
        for name, function in (
            ("mean-of-image", lambda x: x.mean((2, 3), keepdim=True)),
            ("pool", lambda x: nn.functional.avg_pool2d(x, (2, 2), (2, 2))),
        )
    ),
    *(
        Case(
            name=name,
            build=by_channel(shape, *weight, static=True),
            expected=expected,
            operator=operator,
            code=code,
        )
        for name, shape, weight, expected, operator, code in (
            ("static-8-bit", (5, 64), (30, 64), "right", "", ""),
            ("static-8-bit-image", (1, 8, 9, 9), (12, 8, 3, 3), "right", "", ""),
            (
                "static-8-bit-images",
                (2, 8, 9, 9),
                (12, 8, 3, 3),
                "wrong",
                "et_vk.q8ta_conv2d.default",
                "convolution-batched",
            ),
            ("static-8-bit-row", (1, 64), (10, 64), "right", "", ""),
            (
                "static-8-bit-batch",
                (2, 8, 64),
                (32, 64),
                "wrong",
                "et_vk.q8ta_linear.default",
                "linear-input-batched",
            ),
            (
                "static-8-bit-rows",
                (2, 1, 64),
                (32, 64),
                "wrong",
                "et_vk.q8ta_linear_gemv.default",
                "linear-input-batched",
            ),
        )
    ),
    *(
        Case(
            name=f"4-bit-per-channel-{columns}-{rows}",
            build=by_channel((5, columns), rows, columns, bits=4),
            expected="not-loadable" if code else "right",
            operator="et_vk.linear_qcs4w.default" if code else "",
            code=code,
        )
        for columns, rows, code in (
            (64, 32, ""),
            (64, 30, "rows-not-multiple-of-4"),
            (62, 32, "columns-not-multiple-of-4"),
        )
    ),
    *(
        Case(
            name=f"own-caches-of-{value}",
            build=lambda value=value: (OwnCaches(value), (torch.randn(1, 2, 16), torch.tensor([3]))),
            expected=expected,
            operator=operator,
        )
        for value, expected, operator in ((0.0, "right", ""), (1.0, "wrong", "sdpa_with_kv_cache.default"))
    ),
    Case(
        name="gather-from-the-end",
        build=of(lambda x: x.gather(-1, torch.tensor([[1, 0, 2], [0, 2, 2]])) * 2, torch.rand(2, 3)),
        expected="wrong",
        operator="aten.gather.default",
        code="dimension-from-the-end",
    ),
    Case(
        name="gather-from-the-front",
        build=of(lambda x: x.gather(1, torch.tensor([[1, 0, 2], [0, 2, 2]])) * 2, torch.rand(2, 3)),
        expected="right",
    ),
)
