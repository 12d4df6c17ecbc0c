"""Operators on images, all of textures packed by channels."""

from typing import Final

from vkfuse.pte.shader_names.spelling import Namer, by_dtype, by_storage_and_dtype

NAMERS: Final[dict[str, Namer]] = {
    "aten.avg_pool2d.default": by_dtype("avg_pool2d"),  # Pool.cpp
    "aten.max_pool2d.default": by_dtype("max_pool2d"),
    "aten.max_pool2d_with_indices.default": by_dtype("max_pool2d"),
    "aten.upsample_nearest2d.vec": by_dtype("upsample_nearest2d"),  # Upsample.cpp
    "aten.upsample_bilinear2d.vec": by_dtype("upsample_bilinear2d"),
    "aten.pixel_shuffle.default": by_storage_and_dtype("pixel_shuffle"),  # PixelShuffle.cpp
    "aten.grid_sampler_2d.default": by_dtype("grid_sampler_2d"),  # GridSampler2d.cpp
    "et_vk.grid_priors.default": by_dtype("grid_priors"),  # GridPriors.cpp
}
