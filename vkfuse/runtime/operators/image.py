"""Pools and other operators on images, all of textures packed by channels."""

from collections.abc import Iterator
from typing import Final

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


_SIZES: Final = ("kernel_size", "stride", "padding")
_MAX_SIZES: Final = (*_SIZES, "dilation")
OPERATORS: Final = (
    Operator(
        "aten.avg_pool2d.default",
        "self kernel_size stride padding",
        rules=(sizes_are_pairs(*_SIZES),),
        shaders=by_dtype("avg_pool2d"),
    ),
    *(
        Operator(
            f"aten.{name}.default",
            "self kernel_size stride padding dilation",
            rules=(sizes_are_pairs(*_MAX_SIZES),),
            shaders=by_dtype("max_pool2d"),
        )
        for name in ("max_pool2d", "max_pool2d_with_indices")
    ),
    *(
        Operator(f"aten.{name}.vec", shaders=by_dtype(name), resized=False)  # Upsample.cpp
        for name in ("upsample_nearest2d", "upsample_bilinear2d")
    ),
    Operator("aten.pixel_shuffle.default", shaders=by_storage_and_dtype("pixel_shuffle")),  # PixelShuffle.cpp
    Operator("aten.grid_sampler_2d.default", shaders=by_dtype("grid_sampler_2d")),  # GridSampler2d.cpp
    Operator("et_vk.grid_priors.default", shaders=by_dtype("grid_priors")),  # GridPriors.cpp
)
