"""The cases that every variant of the shader is checked against."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from vkfuse.glsl.geometry import Size3, global_size, local_size, output_sizes
from vkfuse.glsl.operands import Lookup
from vkfuse.glsl.variants import ROWS_PER_BLOCK
from vkfuse.multiples import round_up

INT32_MAX = 2**31 - 1


class Scales(StrEnum):
    """How a case draws its scales."""

    USUAL = "usual"  # about 1/64, both signs
    BROKEN = "broken"  # some infinite or NaN: the other groups' values must be right
    WIDE = "wide"  # from subnormal halves to the largest: every rounding of a half


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One lookup. `local` replaces the runtime's local size; `outside` adds indices that the table does not have."""

    vocab: int
    embed_dim: int
    group_size: int
    index_shape: tuple[int, ...]
    local: Size3 | None = None
    outside: bool = False
    scales: Scales = Scales.USUAL

    def __str__(self) -> str:
        parts = [f"{self.vocab}x{self.embed_dim}/{self.group_size}", f"indices {list(self.index_shape)}"]
        parts += [f"local {self.local}"] if self.local else []
        parts += ["outside"] if self.outside else []
        parts += [f"{self.scales} scales"] if self.scales is not Scales.USUAL else []
        return ", ".join(parts)

    @property
    def local_size(self) -> Size3:
        """The local size to dispatch with."""
        return self.local or local_size(global_size(output_sizes(self.index_shape, self.embed_dim)))


CASES: tuple[Case, ...] = (
    # The runtime's local sizes, each with a remainder somewhere.
    Case(vocab=1003, embed_dim=2048, group_size=32, index_shape=(1,)),
    Case(vocab=37, embed_dim=640, group_size=64, index_shape=(7, 33)),
    Case(vocab=50, embed_dim=384, group_size=128, index_shape=(67,)),
    Case(vocab=9, embed_dim=4096, group_size=4096, index_shape=(13,)),
    Case(vocab=203, embed_dim=64, group_size=16, index_shape=(131,)),
    Case(vocab=19, embed_dim=32, group_size=32, index_shape=(300,)),
    Case(vocab=11, embed_dim=96, group_size=4, index_shape=(2, 5)),
    # Groups that no vector fits: from one column up.
    Case(vocab=10, embed_dim=96, group_size=1, index_shape=(2, 5)),
    Case(vocab=12, embed_dim=64, group_size=2, index_shape=(131,)),
    Case(vocab=13, embed_dim=384, group_size=6, index_shape=(67,)),
    Case(vocab=14, embed_dim=96, group_size=3, index_shape=(2, 3, 5), local=(5, 3, 2)),
    # Indices in planes; batches larger than sequences; none at all.
    Case(vocab=15, embed_dim=32, group_size=8, index_shape=(3, 2, 6)),
    Case(vocab=17, embed_dim=128, group_size=32, index_shape=(66, 2)),
    Case(vocab=8, embed_dim=64, group_size=32, index_shape=(0,)),
    Case(vocab=8, embed_dim=64, group_size=32, index_shape=(3, 0)),
    # Local sizes that the runtime would not choose.
    Case(vocab=18, embed_dim=160, group_size=32, index_shape=(9,), local=(1, 1, 1)),
    Case(vocab=20, embed_dim=160, group_size=32, index_shape=(3, 9), local=(7, 3, 1)),
    Case(vocab=21, embed_dim=160, group_size=32, index_shape=(3, 9), local=(2, 5, 3)),
    # Indices outside the table; roundings.
    Case(vocab=256, embed_dim=256, group_size=32, index_shape=(4, 5), outside=True),
    Case(vocab=1003, embed_dim=96, group_size=6, index_shape=(23,), outside=True),
    Case(vocab=21, embed_dim=64, group_size=64, index_shape=(10,), outside=True),
    Case(vocab=64, embed_dim=384, group_size=32, index_shape=(67,), scales=Scales.WIDE),
    Case(vocab=64, embed_dim=384, group_size=32, index_shape=(67,), scales=Scales.BROKEN),
)


def lookup_of(case: Case) -> Lookup:
    """Random operands of a case, first and last row asked for; the scales are halves, which both types hold."""
    rng = np.random.default_rng([0, *case.index_shape, case.vocab, case.embed_dim, case.group_size])
    shape = (case.vocab, case.embed_dim // case.group_size)
    if case.scales is Scales.WIDE:
        bits = rng.integers(
            0, 0x7000, shape, np.uint16
        )  # the exponents up to 2**12: times -8, still no infinity
        scales = bits.view(np.float16)
    else:
        scales = (rng.standard_normal(shape) / 64).astype(np.float16)
    if case.scales is Scales.BROKEN:
        broken = rng.random(shape) < 1 / 8
        scales[broken] = rng.choice(np.array([np.nan, np.inf, -np.inf], np.float16), broken.sum())
    indices = rng.integers(0, case.vocab, case.index_shape, np.int32)
    flat = indices.reshape(-1)
    flat[: min(flat.size, 2)] = [0, case.vocab - 1][: flat.size]
    if case.outside:
        outside = outside_indices(case.vocab, shape[1])
        flat[2 : 2 + len(outside)] = outside
    values = rng.integers(-8, 8, (case.vocab, case.embed_dim), np.int8)
    return Lookup(values=values, scales=scales, group_size=case.group_size, indices=indices)


def outside_indices(vocab: int, groups: int) -> tuple[int, ...]:
    """Indices before and behind a table with `groups` scales a row, as near as every layout can tell.

    A linear weight ends with a block. Its scales tell the last row where a row's fill 16 bytes, to which their buffer is
    rounded. 2^29 rows of 8 words or scales are 2^32, which 32 bits take for none.
    """
    end = vocab if groups * 2 >= 16 else round_up(vocab, ROWS_PER_BLOCK)
    return -1, end, end + 1, 1 << 20, 1 << 29, INT32_MAX, -INT32_MAX - 1
