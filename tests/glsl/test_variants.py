"""Names, bindings and dispatch of the variants, against the runtime's own lists."""

from itertools import product
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vkfuse.glsl.geometry import global_size, local_size, output_sizes, work_groups
from vkfuse.glsl.manifest import shipped_manifest, shipped_spirv
from vkfuse.glsl.variants import VARIANTS, DType, TensorStorage
from vkfuse.pte.enums import VkDataType, VkStorageType
from vkfuse.runtime.operands import Operands, Tensor
from vkfuse.runtime.operators.lookup import FUSED
from vkfuse.runtime.operators.lookup import dispatches as dispatches_of
from vkfuse.runtime.versions import find_runtime, lines_with

DTYPES = {DType.HALF: VkDataType.FLOAT16, DType.FLOAT: VkDataType.FLOAT32}
STORAGES = {TensorStorage.BUFFER: VkStorageType.BUFFER, TensorStorage.TEXTURE3D: VkStorageType.TEXTURE_3D}


def dispatches(*, vocab, embed_dim, scales, dtype, storage, is_linear_weight):
    """Return what a lookup in a table [vocab, embed_dim] may dispatch."""
    values = {
        "weight": Tensor(dims=(vocab, embed_dim // 2), dtype=VkDataType.UINT8, constant=True),
        "scales": Tensor(dims=(vocab, 1), dtype=DTYPES[scales], constant=True),
        "is_linear_weight": is_linear_weight,
    }
    out = Tensor(dims=(1, embed_dim), dtype=DTYPES[dtype], storages=frozenset({STORAGES[storage]}))
    return dispatches_of(Operands(operator=FUSED, values=values, output=out), lines_with(FUSED))


def test_names_are_the_runtimes():
    """The 24 names are exactly the `embedding_q4gsw` shaders of the ExecuTorch runtime."""
    for version in ("1.5.0", "1.5.1"):
        registered = {name for name in find_runtime(version).shaders if "embedding_q4gsw" in name}
        assert {variant.name for variant in VARIANTS} == registered


def test_the_manifest_describes_what_ships():
    """Every variant ships with the bindings and features that the runtime will give it, and nothing more."""
    shaders = {shader.name: shader for shader in shipped_manifest().shaders}
    for variant in VARIANTS:
        shader = shaders.pop(variant.name)
        assert shader.bytes == len(shipped_spirv(variant))
        assert shader.bindings == variant.bindings
        assert shader.features == (("storageBuffer16BitAccess",) if variant.needs_16bit_storage else ())
        assert shader.spirv == "1.3"
    assert not shaders


# (global size, local size) from the rule in ComputeGraph::create_local_wg_size, worked out by hand.
LOCAL_SIZES = [
    ((64, 1, 1), (64, 1, 1)),
    ((1, 300, 1), (1, 64, 1)),
    ((64, 4096, 1), (4, 16, 1)),
    ((64, 8, 1), (16, 4, 1)),
    ((18, 4096, 1), (2, 32, 1)),
    ((128, 13, 1), (32, 2, 1)),
    ((20, 33, 7), (4, 8, 2)),
    ((3, 5, 2), (3, 8, 2)),
    ((1, 1, 4096), (1, 64, 1)),
    ((8, 1, 12), (1, 16, 4)),
    ((4, 12, 8), (4, 2, 8)),
    ((8, 8, 8), (8, 4, 2)),
]


@pytest.mark.parametrize(("global_", "local"), LOCAL_SIZES)
def test_local_size_rule(global_, local):
    """The largest axis gets the most, unless three change places; two and one axis have rules of their own."""
    assert local_size(global_) == local


@given(shape=st.lists(st.integers(0, 50), max_size=3).map(tuple), blocks=st.integers(1, 40))
def test_work_groups_cover_the_output_once(shape, blocks):
    """The dispatched invocations cover every block of 32 columns, with less than a work group to spare on each axis."""
    global_ = global_size(output_sizes(shape, 32 * blocks))
    local = local_size(global_)
    groups = work_groups(global_, local)
    if prod(global_) == 0:
        assert groups == (0, 0, 0)
        return
    for count, step, size in zip(groups, local, global_, strict=True):
        assert size <= count * step < size + step


def test_a_site_names_its_shaders():
    """A flat table has one shader; a linear one two, and says which device limit decides, unless every device has it."""
    site = {"vocab": 128256, "embed_dim": 2048, "scales": DType.FLOAT, "dtype": DType.HALF}
    (flat,) = dispatches(**site, storage=TensorStorage.BUFFER, is_linear_weight=False)
    assert (flat.name, flat.when, flat.runtimes) == (
        "embedding_q4gsw_float_scales_buffer_half",
        "",
        ("1.3", "1.4", "1.5"),
    )
    texture, buffer = dispatches(**site, storage=TensorStorage.TEXTURE3D, is_linear_weight=True)
    assert texture.name == "embedding_q4gsw_float_scales_linear_weight_texture2d_texture3d_half"
    assert texture.when == "maxImageDimension2D >= 16032"
    assert buffer.name == "embedding_q4gsw_float_scales_linear_weight_buffer_texture3d_half"
    (small,) = dispatches(
        **site | {"vocab": 8 * 4096}, storage=TensorStorage.TEXTURE3D, is_linear_weight=True
    )
    assert (small.name, small.when) == (texture.name, "")


def test_every_site_dispatches_a_known_variant():
    """Whatever the site, its shaders are among the 24."""
    names = {variant.name for variant in VARIANTS}
    for scales, dtype, storage, linear in product(DType, DType, TensorStorage, (True, False)):
        shaders = dispatches(
            vocab=100, embed_dim=64, scales=scales, dtype=dtype, storage=storage, is_linear_weight=linear
        )
        assert {shader.name for shader in shaders} <= names
