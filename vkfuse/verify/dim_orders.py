"""Orders of dimensions that ExecuTorch's CPU kernels refuse, where torch's operators of the same names do not.

Read from kernels/portable/cpu and kernels/optimized/cpu of ExecuTorch 1.5: `tensor_is_default_dim_order` and
`tensors_have_same_dim_order`.
"""

from collections.abc import Iterable
from typing import Final

Order = tuple[int, ...]

# Kernels that want every tensor in the default order.
_DEFAULT: Final = """
_adaptive_avg_pool2d _cdist_forward _native_batch_norm_legit _native_batch_norm_legit_no_training
_pdist_forward addmm amax amin as_strided_copy avg_pool2d bmm diagonal_copy embedding expand_copy
grid_sampler_2d index index_put index_select mean min mm native_group_norm native_layer_norm
pixel_shuffle reflection_pad1d reflection_pad2d reflection_pad3d repeat repeat_interleave scatter_add
squeeze_copy stack sum t_copy tril unbind_copy var view_copy
"""
_DEFAULT_ONLY: Final = frozenset(_DEFAULT.split())
# Kernels that want every tensor in one order, whichever.
_ONE: Final = """
abs acos acosh add any argmax argmin asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_not
bitwise_or bitwise_right_shift bitwise_xor cat ceil clamp constant_pad_nd convolution cos cosh cumsum div
elu eq erf expm1 flip floor floor_divide fmod ge gelu glu gt hardtanh isinf isnan le leaky_relu log
log10 log1p log2 _log_softmax logical_and logical_not logical_or logical_xor logit lt masked_fill max
maximum minimum mul ne neg permute_copy pow reciprocal relu remainder roll round rsqrt rsub select_copy
select_scatter sigmoid sign sin sinh slice_copy slice_scatter _softmax split_copy split_with_sizes_copy sqrt
sub tan tanh transpose_copy trunc upsample_bilinear2d upsample_nearest2d where
"""
_ONE_ORDER: Final = frozenset(_ONE.split())
# Which do not ask it of a vector, their bias; to all others one has the default order.
_NOT_OF_VECTORS: Final = frozenset({"convolution"})


def refused_copy(name: str, asked: object, source: Order, target: Order) -> str:
    """Say why a copy or an empty tensor `dim_order_ops::...` refuses the order of its output, nothing where it does not.

    Source: kernels/portable/cpu/util/copy_ops_util.cpp, check__to_dim_order_copy_args; op__empty_dim_order.cpp.
    """
    if not name.startswith("dim_order_ops::"):
        return ""
    wanted = tuple(asked) if isinstance(asked, list) else source
    return (
        ""
        if wanted == target
        else f"the kernel wants an output in the order {list(wanted)}, not {list(target)}"
    )


def refused_order(name: str, orders: Iterable[Order]) -> str:
    """Say why the kernel `namespace::packet.overload` refuses tensors in these orders, nothing where it does not."""
    packet = name.partition("::")[2].partition(".")[0]
    given = [order for order in orders if len(order) > 1 or packet not in _NOT_OF_VECTORS]
    others = [order for order in given if order != tuple(range(len(order)))]
    if packet in _DEFAULT_ONLY and others:
        return f"the kernel takes the default order of dimensions, not {list(others[0])}"
    if packet in _ONE_ORDER and others and len(others) < len(given):
        return f"the kernel takes one order of dimensions, not {list(others[0])} among others"
    return ""
