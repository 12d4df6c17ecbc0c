"""Rotary embeddings, fused attention, and attention over a cache (RotaryEmbedding.cpp, SDPA.cpp)."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from vkfuse.pte.calls import Call
from vkfuse.pte.shader_names.spelling import Namer, by_storage_and_dtype, dtype, size
from vkfuse.pte.vulkan import VkTensor

_MOST_HEADS_A_GROUP: Final = 8  # kMaxGqaGroupSize


def fused(call: Call) -> Iterator[str]:
    """et_vk.sdpa: weights in the output's storage; a mask is another shader."""
    query, key, value, out = call.tensor(0), call.tensor(1), call.tensor(2), call.tensor(-1)
    if query and key and value and out:
        bias = "_bias" if call.value(3) is not None else ""
        yield f"fused_sdpa_qk_tiled{bias}_{_pair(call, query, key)}"
        yield f"fused_sdpa_softmax_{call.site.storage_suffix(out)}_{dtype(query)}"
        yield f"fused_sdpa_av_tiled_{_pair(call, out, value)}"


def with_cache(call: Call) -> Iterator[str]:
    """sdpa_with_kv_cache: caches are stored as the query is, written, then attended to."""
    query, key, value, cache = call.tensor(0), call.tensor(1), call.tensor(2), call.tensor(4)
    out = call.tensor(-1)
    if query and key and value and cache and out:
        stored_cache = replace(cache, storage=query.storage)
        for projected in (key, value):
            yield f"sdpa_kv_cache_update_{_pair(call, stored_cache, projected, kind=projected)}"
        yield from _over_cache(call, query, stored_cache, stored_cache, out)


def custom(call: Call) -> Iterator[str]:
    """llama.custom_sdpa: over caches that are tensors of the graph."""
    query, keys, values, out = call.tensor(0), call.tensor(1), call.tensor(2), call.tensor(-1)
    if query and keys and values and out:
        yield from _over_cache(call, query, keys, values, out)


def update_cache(call: Call) -> Iterator[str]:
    """update_cache: value, then cache."""
    projected, cache = call.tensor(0), call.tensor(1)
    if projected and cache:
        yield f"sdpa_kv_cache_update_{_pair(call, cache, projected, kind=projected)}"


def _over_cache(
    call: Call, query: VkTensor, keys: VkTensor, values: VkTensor, out: VkTensor
) -> Iterator[str]:
    """sdpa_impl: a single token is computed by cooperating threads."""
    one = size(query, -3) == 1
    yield f"sdpa_compute_attn_weights_{'coop' if one else 'tiled'}_{_pair(call, query, keys)}"
    yield f"sdpa_attn_weights_softmax_{call.site.storage_suffix(query)}_{dtype(query)}"
    way = "tiled"
    if one:
        way = "gqa_coop" if _grouped(size(query, -2), size(values, -2)) else "coop"
    yield f"sdpa_compute_out_{way}_{_pair(call, out, values)}"


def _grouped(queries: int, keys: int) -> bool:
    """use_gqa_av_coop: whether several heads of the query share one of the keys; an Adreno asks for its own tiling."""
    return 0 < keys < queries and queries % keys == 0 and queries // keys <= _MOST_HEADS_A_GROUP


def _pair(call: Call, first: VkTensor, second: VkTensor, kind: VkTensor | None = None) -> str:
    """Storages of two tensors, and the type of the first unless another is named."""
    storage = call.site.storage_suffix
    return f"{storage(first)}_{storage(second)}_{dtype(kind or first)}"


NAMERS: Final[dict[str, Namer]] = {
    "et_vk.apply_rotary_emb.default": by_storage_and_dtype("rotary_embedding"),
    "et_vk.apply_rotary_emb_hf.default": by_storage_and_dtype("rotary_embedding_hf"),
    "et_vk.apply_rotary_emb_interleaved.default": by_storage_and_dtype("apply_rotary_emb_interleaved"),
    "et_vk.sdpa.default": fused,
    "sdpa_with_kv_cache.default": with_cache,
    "llama.custom_sdpa.default": custom,
    "update_cache.default": update_cache,
}
