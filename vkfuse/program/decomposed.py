"""Operators that ExecuTorch decomposes after all repairs, decomposed before them, so that repairs see what is left."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from torch._decomp import core_aten_decompositions, get_decompositions
from torch._ops import OpOverload, ops

aten = ops.aten

# What rules and repairs look for, by name without overload, what Vulkan has as it is, and what is folded by its kernel:
# torch's decomposition of linspace rounds otherwise.
_KEPT: Final = """
__and__ __or__ _unsafe_view _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact2d
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d arange bilinear celu col2im conv1d
conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d cosine_similarity detach einsum embedding_bag
empty_like expand_copy fake_quantize_per_tensor_affine floor_divide group_norm hardswish im2col index_add index_copy
instance_norm item layer_norm linear linspace log_softmax logspace masked_fill matmul max max_pool2d max_pool3d min
mish new_empty new_full new_ones new_zeros ones ones_like pad pixel_shuffle repeat_interleave rms_norm roll rsub
scaled_dot_product_attention select_scatter softmax softplus split split_with_sizes_copy squeeze stack std stft sum
sym_size t take_along_dim transpose type_as unbind upsample_bicubic2d upsample_nearest2d var where zeros zeros_like
"""
KEPT: Final = frozenset(_KEPT.split())


@cache
def decompositions() -> Mapping[OpOverload, Callable[..., Any]]:
    """Torch's own for ATen's operators that are not in its core, but for those that are kept.

    Batch norms of batches, too: ExecuTorch does not decompose them, and no library has a kernel.
    """
    core = core_aten_decompositions()
    known = {of: core[of] for of in core if _is_decomposed(of)}
    return known | get_decompositions([aten._native_batch_norm_legit_functional.default])  # noqa: SLF001 - the operator's name


def _is_decomposed(of: Any) -> bool:
    return isinstance(of, OpOverload) and of.namespace == "aten" and _name(of) not in KEPT


def _name(of: OpOverload) -> str:
    return str(of.overloadpacket).partition(".")[2]
