"""Pools and other operators on images, all of textures packed by channels."""

from collections.abc import Iterator
from typing import Final

from vkfuse.runtime.axes import axis_by_axis
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.operands import Operands
from vkfuse.runtime.record import Operator, Rule
from vkfuse.runtime.spelling import by_dtype, by_storage_and_dtype


def sizes_are_pairs(*arguments: str) -> Rule:
    """utils/KernelUtils.cpp, make_ivec2_from_list: two numbers for the kernel, stride and so on (measured: stride=[])."""

    def rule(ops: Operands) -> Iterator[Objection]:
        """utils/KernelUtils.cpp."""
        for argument in arguments:
            sizes = ops.integers(argument)
            if sizes is not None and len(sizes) != 2:
                yield Objection(Code.POOL_ARGUMENTS, f"{argument} is {list(sizes)}")

    return rule


def by_exact_factors(ops: Operands) -> Iterator[Objection]:
    """Upsample.cpp: the output is the input times its scales, which may be fractions."""
    scales = ops.value("scale_factors")
    if not isinstance(scales, tuple):
        return
    for (old, new), scale in zip(_sides(ops), scales, strict=False):
        if isinstance(scale, int | float) and old * scale != new:
            yield Objection(Code.UPSAMPLE_SCALES, f"{old} times {scale} is not {new}")
            return


def nearest_of_whole_pixels(ops: Operands) -> Iterator[Objection]:
    """ops/glsl/upsample_2d.glsl rounds to the nearest centre, torch rounds down: the same for whole factors (measured)."""
    for old, new in _sides(ops):
        if old and new % old:
            yield Objection(Code.NEAREST_BY_CENTRE, f"{old} pixels become {new}")
            return


def scaled_once(ops: Operands) -> Iterator[Objection]:
    """Upsample.cpp computes once, by the greatest sizes, how far apart pixels are (measured)."""
    source = ops.tensor("input")
    varies = source and source.dynamic & {2, 3}
    if varies and (ops.flag("align_corners") or ops.value("output_size") is not None):
        yield Objection(Code.NO_RESIZE, "of a dynamic image, to a given size or between its corners")


def _sides(ops: Operands) -> tuple[tuple[int, int], ...]:
    """Height and width before and after; nothing for what is no image."""
    source, out = ops.tensor("input"), ops.out
    if not (source and out and min(len(source.dims), len(out.dims)) > 2):
        return ()
    return tuple(zip(source.dims[-2:], out.dims[-2:], strict=True))


_SIZES: Final = ("kernel_size", "stride", "padding")
_MAX_SIZES: Final = (*_SIZES, "dilation")
OPERATORS: Final = (
    Operator(
        "aten.avg_pool2d.default",
        "self kernel_size stride padding",
        rules=(sizes_are_pairs(*_SIZES),),
        axes=axis_by_axis("self"),
        shaders=by_dtype("avg_pool2d"),
    ),
    *(
        Operator(
            f"aten.{name}.default",
            "self kernel_size stride padding dilation",
            rules=(sizes_are_pairs(*_MAX_SIZES),),
            departs=(Code.NOT_FINITE,),
            axes=axis_by_axis("self", "self"),
            shaders=by_dtype("max_pool2d"),
        )
        for name in ("max_pool2d", "max_pool2d_with_indices")
    ),
    Operator(
        "aten.upsample_nearest2d.vec",
        "input output_size scale_factors",
        rules=(by_exact_factors, nearest_of_whole_pixels, scaled_once),
        axes=axis_by_axis("input"),
        shaders=by_dtype("upsample_nearest2d"),
    ),
    Operator(
        "aten.upsample_bilinear2d.vec",
        "input output_size align_corners scale_factors",
        rules=(by_exact_factors, scaled_once),
        axes=axis_by_axis("input"),
        shaders=by_dtype("upsample_bilinear2d"),
    ),
    Operator(
        "aten.pixel_shuffle.default",
        "self",
        axes=axis_by_axis("self"),
        shaders=by_storage_and_dtype("pixel_shuffle"),
    ),  # PixelShuffle.cpp
    Operator("aten.grid_sampler_2d.default", shaders=by_dtype("grid_sampler_2d")),  # GridSampler2d.cpp
    Operator("et_vk.grid_priors.default", shaders=by_dtype("grid_priors")),  # GridPriors.cpp
)
