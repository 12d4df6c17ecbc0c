"""Softmax, norms, sums, extrema and variances."""

from collections.abc import Iterator
from typing import Final

from vkfuse.pte.calls import Call
from vkfuse.pte.shader_names.packing import copied_like
from vkfuse.pte.shader_names.spelling import Namer, by_storage_and_dtype, dtype, in_buffer, output, stored

_TWO: Final = 2


def norm(operator: str, *constants: int) -> Namer:
    """NativeLayerNorm.cpp, RmsNorm.cpp: weights are stored as the input is."""

    def names(call: Call) -> Iterator[str]:
        source, out = call.tensor(0), output(call)
        if source and out and all(call.tensor(position) for position in constants):
            for position in constants:
                yield from copied_like(call.tensor(position), source, call.site)
            yield f"{operator}_{stored(call.site, out)}"

    return names


def group_norm(call: Call) -> Iterator[str]:
    """GroupNorm.cpp: one shader for means and variances, one for the rest; of textures."""
    source, out = call.tensor(0), output(call)
    if source and out:
        for position in (1, 2):
            yield from copied_like(call.tensor(position), source, call.site)
        yield f"group_norm_reduce_texture_{dtype(out)}"
        yield f"group_norm_texture_{dtype(out)}"


def batch_norm(call: Call) -> Iterator[str]:
    """BatchNorm.cpp: of textures."""
    out = output(call)
    if out:
        for position in (1, 2, 3, 4):
            yield from copied_like(call.tensor(position), out, call.site)
        yield f"batchnorm_{dtype(out)}"


def reduction(operator: str) -> Namer:
    """Reduce.cpp: rows of a buffer, or one or two dimensions of a texture."""

    def names(call: Call) -> Iterator[str]:
        source, out = call.tensor(0), call.tensor(-1)
        dims = call.integers(1) if call.value(1) is not None else (-1,)
        if source is None or out is None or dims is None:
            return
        if dims in ((-1,), (len(source.dims) - 1,)) and in_buffer(call.site, source):
            yield f"{operator}_per_row_{stored(call.site, source)}"
        elif len(dims) in {1, _TWO} and not (in_buffer(call.site, source) or in_buffer(call.site, out)):
            yield f"{operator}{'2d' if len(dims) == _TWO else ''}_{dtype(out)}"

    return names


def arg_reduction(operator: str) -> Namer:
    """ArgReduce.cpp: rows of a buffer."""

    def names(call: Call) -> Iterator[str]:
        source = call.tensor(0)
        if source and in_buffer(call.site, source):
            yield f"{operator}_per_row_{stored(call.site, source)}"

    return names


NAMERS: Final[dict[str, Namer]] = {
    "aten._softmax.default": by_storage_and_dtype("softmax"),
    "aten._log_softmax.default": by_storage_and_dtype("log_softmax"),
    "aten.native_layer_norm.default": norm("native_layer_norm", 2, 3),
    "et_vk.rms_norm.default": norm("rms_norm", 1),
    "aten.native_group_norm.default": group_norm,
    "aten._native_batch_norm_legit_no_training.default": batch_norm,
    "aten.sum.dim_IntList": reduction("sum"),
    "aten.mean.dim": reduction("mean"),
    "aten.amax.default": reduction("amax"),
    "aten.amin.default": reduction("amin"),
    "aten.argmax.default": arg_reduction("argmax"),
    "aten.argmin.default": arg_reduction("argmin"),
    "aten.var.dim": by_storage_and_dtype("var"),
}
