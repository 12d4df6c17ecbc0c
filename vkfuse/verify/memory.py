"""The values of a method while it runs. Planned tensors live in arenas, as on the device.

The emitter leaves out views that change nothing but the shape: such a tensor has no instruction of its own
and is read from the memory that it shares with another. Arenas show that, and any overlap of a bad plan.

Orders of dimensions that ExecuTorch's CPU kernels refuse, where torch's operators of the same names do not: read from
kernels/portable/cpu and kernels/optimized/cpu of ExecuTorch 1.5, `tensor_is_default_dim_order` and
`tensors_have_same_dim_order`.
"""

from collections.abc import Hashable, Iterable
from math import prod
from typing import Any, Final

import numpy as np
import torch

from vkfuse.errors import FormatError, InputError
from vkfuse.pte.model import BoxedIntList, Method, OptionalTensorList, Tensor, TensorList, Value
from vkfuse.pte.values import Bool, BoolList, Double, DoubleList, Int, String
from vkfuse.verify.tensors import laid_out, scalar_dtype, tensor_of

_MOST_BYTES: Final = 1 << 36  # of planned memory that a file may ask for


class Memory:
    """Values by index. A tensor keeps the shape that was written to it last."""

    def __init__(self, method: Method) -> None:
        self._method = method
        self._values = method.values
        self._where = method.name
        self._arenas: tuple[torch.Tensor, ...] = ()
        self._state: dict[int, Any] = {}
        self._sizes: dict[int, tuple[int, ...]] = {}
        self.reset()

    def reset(self) -> None:
        """Set every value to what the file says, and the memory that it says nothing of to zero."""
        self._state, self._sizes = {}, {}
        self._arenas = ()  # before others take as much
        self._arenas = _arenas(self._method)
        for index, value in enumerate(self._values):
            initial = self._initial(index, value)
            if isinstance(value, Tensor) and value.allocation is not None:
                if initial is not None:
                    self.write(index, initial)
            else:
                self._state[index] = initial

    def read(self, index: int) -> Any:
        """Return a value; lists are gathered from their members as they are now."""
        value = self._values[index]
        match value:
            case BoxedIntList() | TensorList():
                return [self.read(member) for member in value.ids]
            case OptionalTensorList():
                return [None if member < 0 else self.read(member) for member in value.ids]
            case Tensor() if value.allocation is not None:
                return self._planned(index, value, self._sizes.get(index, value.sizes))
            case _:
                return self._state.get(index)

    def dim_order(self, index: int) -> tuple[int, ...]:
        """Return the order in which a tensor's dimensions lie in memory, outermost first; empty for what is none."""
        spec = self._values[index]
        return spec.dim_order if isinstance(spec, Tensor) else ()

    def write(self, index: int, result: Any) -> None:
        """Set a value; a planned tensor is copied into its place. FormatError where it does not fit."""
        spec = self._values[index]
        if not isinstance(spec, Tensor) or not isinstance(result, torch.Tensor):
            self._state[index] = result
            return
        self.check_shape(index, tuple(result.shape))
        if spec.allocation is None:
            self._state[index] = result.to(self.dtype(index))
            return
        sizes = tuple(result.shape)
        place = self._planned(index, spec, sizes)
        if place.data_ptr() != result.data_ptr() or place.stride() != result.stride():
            place.copy_(result)
        self._sizes[index] = sizes

    def check_shape(self, index: int, sizes: tuple[int, ...]) -> None:
        """See that a shape fits into a tensor; FormatError where it does not."""
        spec = self._values[index]
        if isinstance(spec, Tensor) and not fits(sizes, spec.sizes):
            raise FormatError(
                f"shape {list(sizes)} does not fit into {list(spec.sizes)}", field=self._field(index)
            )

    def dtype(self, index: int) -> torch.dtype:
        """Return the element type of a tensor; FormatError where the value is none."""
        spec = self._values[index]
        if not isinstance(spec, Tensor):
            raise FormatError("a tensor is expected here", field=self._field(index))
        return scalar_dtype(spec.scalar_type, self._field(index))

    def planned(self, index: int) -> bool:
        """Whether a value is a tensor in memory that is planned."""
        spec = self._values[index]
        return isinstance(spec, Tensor) and spec.allocation is not None

    def place(self, index: int) -> Hashable:
        """Return the name of a value's place: planned tensors that share memory share it."""
        spec = self._values[index]
        if isinstance(spec, Tensor) and spec.allocation is not None:
            return self._where, spec.allocation.memory_id, spec.allocation.offset
        return self._where, index

    def places(self, index: int) -> tuple[Hashable, ...]:
        """Return the places of a value, or of a list's members."""
        spec = self._values[index]
        if isinstance(spec, BoxedIntList | TensorList | OptionalTensorList):
            return tuple(self.place(member) for member in spec.ids if member >= 0)
        return (self.place(index),)

    def spec(self, index: int) -> Value:
        """Return what the file says of a value."""
        return self._values[index]

    def _planned(self, index: int, spec: Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
        """Return a view of the arena; FormatError where it leaves the arena."""
        place = spec.allocation
        if place is None or not 0 <= place.memory_id < len(self._arenas):
            raise FormatError("no such memory", field=self._field(index))
        arena, dtype = self._arenas[place.memory_id], self.dtype(index)
        end = place.offset + spec.nbytes
        if end > arena.numel() or place.offset % dtype.itemsize:
            raise FormatError(
                f"bytes {place.offset}..{end} of {arena.numel()} in memory {place.memory_id}",
                field=self._field(index),
            )
        here = arena[place.offset : end]
        flat = here.view(dtype) if len(here) else torch.empty(0, dtype=dtype)  # no bytes, no view
        return laid_out(flat[: prod(sizes)].view(sizes), spec.dim_order)

    def _initial(self, index: int, value: Value) -> Any:
        match value:
            case Tensor(external=True, data=None):
                raise InputError(
                    f"{value.name or self._field(index)} stands in a .ptd", hint="give it with --ptd"
                )
            case Tensor(data=memoryview() as data):
                return tensor_of(data, self.dtype(index), value.sizes, value.dim_order)
            case Int() | Bool() | Double() | String():
                return value.value
            case DoubleList() | BoolList():
                return list(value.items)
            case _:
                return None

    def _field(self, index: int) -> str:
        return f"{self._where}.values[{index}]"


def fits(sizes: tuple[int, ...], bound: tuple[int, ...]) -> bool:
    """Whether a shape stays within the upper bound of a tensor."""
    return len(sizes) == len(bound) and all(size <= most for size, most in zip(sizes, bound, strict=True))


def _arenas(method: Method) -> tuple[torch.Tensor, ...]:
    """Return zeroed memory by id; numpy leaves it to the operating system to commit what is touched."""
    sizes = method.non_const_buffer_sizes
    if sum(sizes) > _MOST_BYTES or any(size < 0 for size in sizes):
        raise FormatError(
            f"{sum(sizes)} bytes of planned memory", field=f"{method.name}.non_const_buffer_sizes"
        )
    try:
        return tuple(torch.from_numpy(np.zeros(size, np.uint8)) for size in sizes)
    except MemoryError as error:
        raise FormatError(f"{sum(sizes)} bytes of planned memory: {error}", field=method.name) from error


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
