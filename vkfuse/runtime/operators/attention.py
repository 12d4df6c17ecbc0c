"""Rotary embeddings, fused attention, and attention over a cache (RotaryEmbedding.cpp, SDPA.cpp)."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from vkfuse.glsl.geometry import local_size
from vkfuse.multiples import ceil_div, round_up
from vkfuse.runtime.axes import axis_by_axis
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.operands import Operands, Tensor
from vkfuse.runtime.record import Operator
from vkfuse.runtime.rules import multiple
from vkfuse.runtime.spelling import by_storage_and_dtype, dtype, storage

WRITE: Final = "vkfuse.update_cache.default"  # a write that the delegate makes in place, by WRITTEN
WRITTEN: Final = "update_cache.default"
ATTENTION: Final = "vkfuse.custom_sdpa.default"  # over such caches, up to the position; by ATTENDED
ATTENDED: Final = "llama.custom_sdpa.default"
ATTENDED_OWN: Final = "sdpa_with_kv_cache.default"  # over caches that it makes itself
ATTENDS_SINCE: Final = (1, 5, 0)  # measured; what shaders older runtimes have is not known
IN_DELEGATES: Final = frozenset({WRITE, ATTENTION})  # the CPU has none of them
_MOST_HEADS_A_GROUP: Final = 8  # kMaxGqaGroupSize
_RANK: Final = 4


def rotary_heads_agree(ops: Operands) -> Iterator[Objection]:
    """RotaryEmbedding.cpp: size(-3) of q and k must be equal, which grouped-query attention breaks."""
    query, key = ops.tensor("query"), ops.tensor("key")
    if not (query and key) or min(len(query.dims), len(key.dims)) < 3:
        return
    if query.dims[-3] != key.dims[-3]:
        detail = f"q has {query.dims[-3]}, k has {key.dims[-3]} in dimension -3"
        yield Objection(Code.ROTARY_HEADS_DIFFER, detail)


def rotary_columns_agree(ops: Operands) -> Iterator[Objection]:
    """RotaryEmbedding.cpp, apply_rotary_emb_hf: q's and k's head sizes are one."""
    sizes = [tensor.dims[-1:] for name in ("query", "key") if (tensor := ops.tensor(name))]
    if len(set(sizes)) > 1:
        yield Objection(Code.ROTARY_HEADS_DIFFER, f"head sizes {sizes}")


def four_dimensions(ops: Operands) -> Iterator[Objection]:
    """SDPA.cpp, fused_sdpa_impl."""
    ranks = [len(t.dims) for name in ("query", "key", "value") if (t := ops.tensor(name))]
    if any(rank != _RANK for rank in ranks):
        yield Objection(Code.SDPA_RANK, f"ranks {ranks}")


def no_mask_and_scale(ops: Operands) -> Iterator[Objection]:
    """SDPA.cpp, sdpa_impl: causal, scaled by the head size."""
    given = [name for name in ("mask", "scale") if ops.value(name) is not None]
    if given:
        yield Objection(Code.SDPA_ARGUMENT, f"{' and '.join(given)} given")


def weights_fit(ops: Operands) -> Iterator[Objection]:
    """SDPA.cpp, sdpa_impl: weights [heads, rows, columns], both in fours, are of fewer rows where no buffer holds them."""
    query, keys = ops.tensor("query"), ops.tensor("keys")
    if query is None or keys is None or query.in_texture:
        return
    weights = weights_of(query.size(-2), query.size(-3), keys.size(-3))
    if weights >= ops.device.buffer:
        yield Objection(Code.BEYOND_LARGEST_BUFFER, f"{weights:,} weights of attention")


def weights_of(heads: int, rows: int, columns: int) -> int:
    """Numbers that attention over a cache keeps between its shaders."""
    return heads * round_up(rows, 4) * round_up(columns, 4)


def fused(ops: Operands) -> Iterator[str]:
    """et_vk.sdpa: weights in the output's storage; a mask is another shader."""
    query, key, value, out = ops.tensor("query"), ops.tensor("key"), ops.tensor("value"), ops.out
    if query and key and value and out:
        bias = "_bias" if ops.value("mask") is not None else ""
        yield f"fused_sdpa_qk_tiled{bias}_{_pair(query, key)}"
        yield f"fused_sdpa_softmax_{storage(out)}_{dtype(query)}"
        yield f"fused_sdpa_av_tiled_{_pair(out, value)}"


def with_cache(ops: Operands) -> Iterator[str]:
    """sdpa_with_kv_cache: caches are stored as the query is, written, then attended to."""
    query, key, value = ops.tensor("query"), ops.tensor("key"), ops.tensor("value")
    cache, out = ops.tensor("value_cache"), ops.out
    if query and key and value and cache and out:
        stored_cache = replace(cache, storages=query.storages)
        for projected in (key, value):
            yield f"sdpa_kv_cache_update_{_pair(stored_cache, projected, kind=projected)}"
        yield from _over_cache(query, stored_cache, stored_cache, out)


def custom(ops: Operands) -> Iterator[str]:
    """llama.custom_sdpa: over caches that are tensors of the graph."""
    query, keys, values, out = ops.tensor("query"), ops.tensor("keys"), ops.tensor("values"), ops.out
    if query and keys and values and out:
        yield from _over_cache(query, keys, values, out)


def update_cache(ops: Operands) -> Iterator[str]:
    """update_cache: rows of `value` into `cache`."""
    projected, cache = ops.tensor("value"), ops.tensor("cache")
    if projected and cache:
        yield f"sdpa_kv_cache_update_{_pair(cache, projected, kind=projected)}"


def rows_reached(columns: int, rows: int, heads: int) -> int:
    """Rows of a cache that writing `rows` of them changes: whole work groups, whose last invocations write zeros.

    glsl/sdpa_kv_cache_update.glsl looks where an invocation writes, not whether it has a row (measured).
    """
    local = local_size((ceil_div(columns, 4), rows, heads))[1]
    return round_up(rows, local)


def no_rows_behind(ops: Operands) -> Iterator[Objection]:
    """Whatever number of rows is written, of `parts` each, none behind them."""
    value = ops.tensor("value")
    if value is None or len(value.dims) != _RANK:
        return
    most, heads, columns = value.dims[1:]
    parts = ops.integer("parts") or 1
    for rows in range(parts, most + 1, parts) if 1 in value.dynamic else (most,):
        if rows_reached(columns, rows, heads) != rows:
            yield Objection(Code.ROWS_BEHIND_ZEROED, f"{rows} rows of {heads} times {columns}")
            return


def whole_texels(ops: Operands) -> Iterator[Objection]:
    """glsl/sdpa_kv_cache_update.glsl: four columns at a time, in buffers too, where a row has no padding."""
    cache = ops.tensor("cache")
    if cache and cache.in_buffer and cache.size(-1) % 4:
        yield Objection(Code.COLUMNS_NOT_MULTIPLE_OF_4, f"rows of {cache.size(-1)}")


def _over_cache(query: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> Iterator[str]:
    """sdpa_impl: a single token is computed by cooperating threads."""
    one = query.size(-3) == 1
    yield f"sdpa_compute_attn_weights_{'coop' if one else 'tiled'}_{_pair(query, keys)}"
    yield f"sdpa_attn_weights_softmax_{storage(query)}_{dtype(query)}"
    way = "tiled"
    if one:
        way = "gqa_coop" if _grouped(query.size(-2), values.size(-2)) else "coop"
    yield f"sdpa_compute_out_{way}_{_pair(out, values)}"


def _grouped(queries: int, keys: int) -> bool:
    """use_gqa_av_coop: whether several heads of the query share one of the keys; an Adreno asks for its own tiling."""
    return 0 < keys < queries and queries % keys == 0 and queries // keys <= _MOST_HEADS_A_GROUP


def _pair(first: Tensor, second: Tensor, kind: Tensor | None = None) -> str:
    """Storages of two tensors, and the type of the first unless another is named."""
    return f"{storage(first)}_{storage(second)}_{dtype(kind or first)}"


OPERATORS: Final = (
    Operator(
        "et_vk.apply_rotary_emb.default",
        "query key",
        rules=(rotary_heads_agree,),
        axes=axis_by_axis("query", "key"),
        shaders=by_storage_and_dtype("rotary_embedding"),
    ),
    Operator(
        "et_vk.apply_rotary_emb_hf.default",
        "query key cos sin",
        rules=(rotary_heads_agree, rotary_columns_agree, multiple(8, Code.ROPE_WIDTH, "cos")),
        axes=axis_by_axis("query", "key"),
        shaders=by_storage_and_dtype("rotary_embedding_hf"),
    ),
    Operator(
        "et_vk.apply_rotary_emb_interleaved.default",
        shaders=by_storage_and_dtype("apply_rotary_emb_interleaved"),
    ),
    Operator(
        "et_vk.sdpa.default",
        "query key value mask",
        rules=(four_dimensions,),
        axes=axis_by_axis("query"),
        shaders=fused,
    ),
    Operator(
        ATTENDED_OWN,
        "query key value key_cache value_cache",
        axes=axis_by_axis("query"),
        shaders=with_cache,
        fusion="causal_sdpa",
    ),
    Operator(
        ATTENDED,
        "query keys values position mask dropout causal scale",
        rules=(no_mask_and_scale, weights_fit),
        axes=axis_by_axis("query"),
        shaders=custom,
    ),
    Operator(
        ATTENTION,
        "query keys values position",
        rules=(weights_fit,),
        axes=axis_by_axis("query"),
        shaders=custom,
        integers=True,
        weighty=True,
        replaced=True,
        numbers="position",
    ),
    Operator(WRITTEN, "value cache position", rules=(whole_texels, no_rows_behind), shaders=update_cache),
    Operator(
        WRITE,
        "cache value position parts readers",
        rules=(whole_texels, no_rows_behind),
        shaders=update_cache,
        integers=True,
        weighty=True,
        replaced=True,
        numbers="position",
    ),
)
