"""Choices of scales for a table of floats, against torchao's own and against each other."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra import numpy as hnp
from torchao.quantization.quant_primitives import (
    MappingType,
    choose_qparams_affine,
    quantize_affine,
)

from vkfuse.lossy import RULES, Setting, parse_choice, parse_setting
from vkfuse.pte.enums import ScalarType
from vkfuse.tables.floats import halves
from vkfuse.tables.quantize import in_halves, loss, quantized

SETTINGS = st.builds(
    Setting, bits=st.sampled_from([4, 8]), group=st.sampled_from([0, 4, 8]), rule=st.sampled_from(RULES)
)
TABLES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.just(16)),
    elements=st.floats(-(2.0**20), 2.0**20, width=32) | st.just(0.0),
)


def _table(rows=400, columns=128):
    generator = np.random.default_rng(0)
    return (generator.standard_t(6, (rows, columns)) * 0.05).astype(np.float32)


def _rebuilt(grid):
    return grid.rebuild(0, grid.rows)


@given(TABLES, SETTINGS)
def test_every_table_has_a_grid_in_range(table, setting):
    """Integers are within their bits, scales normal halves but torchao's, no value further off than half a step."""
    grid = quantized(table, setting, ScalarType.FLOAT)
    assert grid.values.min() >= setting.lowest
    assert grid.values.max() < -setting.lowest
    assert setting.rule == "torchao" or halves(grid.scales) is not None
    inside = np.abs(grid.values.astype(int)) < -setting.lowest - 1  # what was clipped may be further off
    steps = np.abs(grid.scales).repeat(grid.group_size, axis=1)
    apart = np.abs(_rebuilt(grid).astype(np.float64) - table)
    assert (apart <= steps * (0.5 + 2.0**-10))[inside & (steps > 0)].all()


@pytest.mark.parametrize("bits", [4, 8])
def test_torchaos_rule_is_torchaos(bits):
    """The integers and scales of `torchao` are those that torchao computes, bit for bit."""
    table, lowest = _table(), -(1 << (bits - 1))
    grid = quantized(table, Setting(bits=bits, group=32, rule="torchao"), ScalarType.FLOAT)
    given_ = (torch.from_numpy(table), [1, 32], torch.int8, lowest, -lowest - 1)
    floats, block, dtype, *limits = given_
    scales, points = choose_qparams_affine(floats, MappingType.SYMMETRIC, block, dtype, *limits)
    values = quantize_affine(floats, block, scales, points, dtype, *limits)
    assert np.array_equal(grid.scales, scales.numpy())
    assert np.array_equal(grid.values, values.numpy())


def test_our_own_choice_loses_least():
    """The relative error of each rule at groups of 32: that of vkfuse is at least a tenth below torchao's default."""
    errors = {
        rule: loss(
            _table(), _rebuilt(quantized(_table(), Setting(bits=4, group=32, rule=rule), ScalarType.FLOAT))
        )
        for rule in RULES
    }
    ordered = sorted(errors, key=lambda rule: errors[rule].relative_rms)
    assert ordered == ["signed", "q4_0", "hqq", "torchao"]
    assert errors["signed"].relative_rms < 0.9 * errors["torchao"].relative_rms


def test_losses_by_their_definition():
    """Signal to noise, cosine and the largest error, across blocks."""
    before = _table(3000, 1024)
    after = before + np.float32(0.01) * np.sign(before)
    lost, apart = loss(before, after), (after - before).astype(np.float64)
    assert lost.sqnr_db == pytest.approx(
        10 * np.log10((before.astype(np.float64) ** 2).sum() / (apart**2).sum())
    )
    assert lost.cosine == pytest.approx(float(np.corrcoef(before.ravel(), after.ravel())[0, 1]), abs=1e-4)
    assert lost.max_abs_error == np.abs(apart).max()
    assert loss(before, before).sqnr_db == np.inf


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_scales_in_halves_are_near(scale):
    """A scale is rounded to the nearest normal half, or zero; beyond the largest it is that."""
    (made,) = in_halves(np.array([scale], np.float32))
    nearest = max(-65504.0, min(65504.0, scale))
    assert halves(np.array([made], np.float32)) is not None
    assert abs(made - nearest) <= max(abs(nearest) * 2.0**-11, 2.0**-15)


@pytest.mark.parametrize("text", ["int4:64", "int4:32:torchao", "int8", "int8:16:hqq", "int4:8:q4_0"])
def test_settings_are_spelled_as_they_are_read(text):
    """A setting's text gives that setting."""
    assert str(parse_setting(text)) == text


@pytest.mark.parametrize("text", ["int5", "int4:0", "int4:x", "int4:32:best", "", "4:32", "int4:32:"])
def test_what_is_no_setting(text):
    """Anything else is refused by its text."""
    with pytest.raises(ValueError, match="is no setting"):
        parse_setting(text)
    with pytest.raises(ValueError, match="is no setting"):
        parse_choice(f".*={text}")


def test_choices_match_whole_names():
    """The regular expression takes a whole name; what stands before the last = is it."""
    choice = parse_choice(r"layers\..*=int4:32")
    assert choice.takes("layers.0.weight")
    assert not choice.takes("my.layers.0.weight")
    assert parse_choice("a=b=int8").pattern == "a=b"
    assert str(choice) == r"layers\..*=int4:32"
    for text in ("int4:32", "=int4:32", "(=int4:32"):
        with pytest.raises(ValueError, match="is no"):
            parse_choice(text)
