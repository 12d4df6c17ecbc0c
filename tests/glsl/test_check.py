"""Every variant on a Vulkan driver, against the reference; and shaders that are wrong, which must be found out."""

import numpy as np
import pytest

from vkfuse.commands.shader_text import bench_text, check_text
from vkfuse.glsl.bench import Bench, BenchOptions, bench
from vkfuse.glsl.cases import CASES, Case, lookup_of
from vkfuse.glsl.check import check, check_variant, first_difference
from vkfuse.glsl.manifest import bench_spirv, shipped_spirv
from vkfuse.glsl.variants import VARIANTS, DType, TensorStorage, variant_named
from vkfuse.glsl.vulkan.memory import download, upload

BUFFER = variant_named("embedding_q4gsw_float_scales_buffer_float")
TEXTURE_HALF = variant_named("embedding_q4gsw_linear_weight_texture2d_texture3d_half")


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_variant_is_right(device, variant):
    """Bit for bit, and no word from the validation layer.

    The scales' type changes one load, so that a third of the cases will do for the second.
    """
    cases = CASES if variant.scales is DType.HALF else CASES[::3]
    lookups = [(case, lookup_of(case)) for case in cases]
    wrong = [
        outcome
        for outcome in check_variant(device, variant, lookups, shipped_spirv(variant))
        if not outcome.ok
    ]
    assert wrong == []
    assert device.instance.messages == []


def problem_of(device, variant, spirv, case):
    """What a shader makes of one case."""
    return next(iter(check_variant(device, variant, [(case, lookup_of(case))], spirv))).problem


def test_one_scale_for_four_columns_is_found_out(device):
    """The rival shader loads one scale a vector, which is wrong for groups of 6."""
    case = Case(vocab=13, embed_dim=384, group_size=6, index_shape=(67,))
    assert "differ, first at" in problem_of(device, BUFFER, bench_spirv(BUFFER.name), case)


def test_a_shader_for_another_layout_is_found_out(device):
    """Reading a flat table as a linear one gives other values."""
    linear = variant_named("embedding_q4gsw_float_scales_linear_weight_buffer_buffer_float")
    case = Case(vocab=64, embed_dim=64, group_size=32, index_shape=(5,))
    assert "differ, first at" in problem_of(device, BUFFER, shipped_spirv(linear), case)


def test_a_store_behind_the_end_is_found_out(device):
    """A float shader on a half output writes twice the bytes."""
    half = variant_named("embedding_q4gsw_float_scales_buffer_half")
    case = Case(vocab=64, embed_dim=64, group_size=32, index_shape=(3,))
    assert problem_of(device, half, shipped_spirv(BUFFER), case)


def test_a_difference_is_described():
    """The first wrong element is named, with both values; zeros of other sign differ."""
    wrong, right = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)
    assert not first_difference(wrong, right)
    wrong[1, 2] = -0.0
    assert first_difference(wrong, right).startswith("1 of 6 differ, first at [1, 2]: ")


def test_a_report_is_text_and_data(device):
    """A check says the device, each variant and the verdict."""
    report = check(device, [TEXTURE_HALF], CASES[:2])
    assert report.ok
    assert report.as_dict()["schema"] == "vkfuse.shader-check/1"
    text = check_text(report)
    assert f"  {TEXTURE_HALF.name}: 2/2\n" in text
    assert text.endswith("2 of 2 lookups right, bit for bit\n")


def test_the_bench_times_every_layout(device):
    """A bench of one shape has a row for each layout, storage and dtype, and the copy's bandwidth."""
    options = BenchOptions(
        tokens=(3,),
        embed_dims=(64,),
        vocab=40,
        rounds=1,
        max_dispatches=3,
        copy_bytes=1 << 20,
        warm_up_seconds=0,
    )
    report = bench(device, options)
    assert len(report.rows) == 12
    assert all(row.stream > 0 and row.alone_stock > 0 for row in report.rows)
    assert report.as_dict()["rows"][0]["bytes_written"] == 3 * 64 * 2
    assert "buffer outputs against the runtime's mapping" in bench_text(report)


def test_the_copy_copies(device):
    """The yardstick moves all its bytes."""
    with Bench.opened(device, BenchOptions(copy_bytes=1 << 18)) as run:
        data = np.random.default_rng(0).integers(0, 256, 1 << 18, np.uint8)
        upload(run.source, data)
        device.submit(run.copy_by_shader)
        assert np.array_equal(download(run.target), data)


def test_what_does_not_fit_is_left_out(device):
    """A bench leaves out shapes that the device cannot hold, and says when nothing is left."""
    rows = device.info.max_image_3d + 1
    options = BenchOptions(
        tokens=(rows,),
        embed_dims=(32,),
        vocab=8,
        rounds=1,
        max_dispatches=3,
        copy_bytes=1 << 18,
        warm_up_seconds=0,
    )
    report = bench(device, options)
    assert {variant_named(row.variant).storage for row in report.rows} == {TensorStorage.BUFFER}
    assert "no shape fits the device's limits for texture3d outputs" in bench_text(report)
    assert "texture3d" not in bench_text(bench(device, options, [BUFFER]))
