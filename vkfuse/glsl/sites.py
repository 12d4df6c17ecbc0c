"""What a lookup in a program will dispatch: shader names, when each is chosen, and on which runtimes it exists."""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

from vkfuse.glsl.variants import ROWS_PER_BLOCK, VECTOR, DType, Storage, Variant, WeightLayout

OPERATOR = "et_vk.embedding_q4gsw.default"
LEAST_DIMENSION = 4096  # of maxImageDimension2D, by the Vulkan specification


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """A shader that a lookup may dispatch. `when` is empty, or the devices on which it is chosen."""

    name: str
    when: str
    runtimes: tuple[str, ...]


@cache
def runtimes() -> tuple[str, ...]:
    """Runtime versions with the operator; they have all variants, under the same names."""
    text = (resources.files("vkfuse.data") / "vulkan_runtime_ops.json").read_text(encoding="utf-8")
    return tuple(version for version, names in json.loads(text)["ops"].items() if OPERATOR in names)


def dispatches(
    *, vocab: int, embed_dim: int, scales: DType, dtype: DType, storage: Storage, is_linear_weight: bool
) -> tuple[Dispatch, ...]:
    """The shaders for a lookup in a table [vocab, embed_dim]; two where the device's limit decides.

    `dtype` and `storage` are those of the output. Source of the limit: `prepack_quantized_linear_weight`.
    """

    def dispatch(weight: WeightLayout, when: str = "") -> Dispatch:
        variant = Variant(scales=scales, weight=weight, storage=storage, dtype=dtype)
        return Dispatch(name=variant.name, when=when, runtimes=runtimes())

    if not is_linear_weight:
        return (dispatch(WeightLayout.FLAT),)
    texels = max(embed_dim // VECTOR, -(-vocab // ROWS_PER_BLOCK))
    if texels <= LEAST_DIMENSION:
        return (dispatch(WeightLayout.LINEAR_TEXTURE2D),)
    return (
        dispatch(WeightLayout.LINEAR_TEXTURE2D, f"maxImageDimension2D >= {texels}"),
        dispatch(WeightLayout.LINEAR_BUFFER, f"maxImageDimension2D < {texels}"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutAdvice:
    """How to pack a table: `is_linear_weight` for the operator, a stable code for the report, and why."""

    is_linear_weight: bool
    how: str
    reason: str


def layout_advice(*, shared_with_linear: bool) -> LayoutAdvice:
    """The layout for a table that is looked up. Measured on an H100: benchmarks/shader/h100.txt.

    A linear weight is stored once for both only in the linear layout. Alone, flat reads an eighth of the bytes; with
    the runtime's own mapping it is nowhere slower than linear, with ours at one token by at most 8%. Not every GPU
    loads it (docs/shader.md), so that it is for those who ask for it.
    """
    if shared_with_linear:
        return LayoutAdvice(is_linear_weight=True, how="", reason="a linear shares the packed weight")
    return LayoutAdvice(
        is_linear_weight=False,
        how="flat-layout",
        reason="a row is read alone instead of with 7 neighbours: 1.7x to 4.6x faster from 512 tokens on an H100",
    )
