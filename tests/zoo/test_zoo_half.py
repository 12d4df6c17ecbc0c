"""The zoo in half precision: written, loadable, its tables rounded as half rounds them, and right or refused as listed."""

import pytest
import torch
import zoo
from architectures import Encoder
from programs import export, indices, quantize
from stored import exported
from torch import nn
from transformers import BertConfig, BertModel

from vkfuse.errors import CheckFailedError
from vkfuse.options import BaselineChoice, Options, VulkanOptions
from vkfuse.pipeline import optimize
from vkfuse.quiet import quiet

HALF = Options(baseline=BaselineChoice.NONE, vulkan=VulkanOptions(fp16=True))
LIMIT = 1e-2  # what verify lets half precision be off, in shares of an output's largest value
EIGHT_BITS = 5e-2  # and where 8-bit activations fall to another step
COARSE = 1e-2  # of tables whose values reach 16: half a step of their scales, times 8
REPRESENTATIVE = 16  # of so many settings one is in `make test`, each of another architecture
BEYOND_HALF = {
    # Scores that nothing scales, of weights that are twice the initial ones: torch's own half is 1e-2 to 2e-1 off.
    "t5-encoder-8da4w-static-sdpa-b1",
    "t5-encoder-embedding-static-eager-b2",
    "t5-decoder-int4-static-sdpa-b2",
    "t5-decoder-8da4w-dynamic-eager-b2",
    # A row of two tokens that are both masked: scores above 16 are seen beside the lowest half.
    "t5-encoder-int4-dynamic-sdpa-b1",
    # Activations of 8 bits fall to another step: torch's own half is 3e-2 off.
    "clip-text-8da4w-static-sdpa-b2",
    # The mean of no word at all is divided by 1e-12, which is zero in half: not a number.
    "wordllama-256-embedding-dynamic-sdpa-b1",
}


def _parameter(at, setting):
    return pytest.param(setting, id=setting.name, marks=() if at % REPRESENTATIVE == 1 else pytest.mark.zoo)


def test_the_list_names_settings():
    """What half cannot hold is of the zoo."""
    assert {setting.name for setting in zoo.settings()} >= BEYOND_HALF


def test_positions_of_the_size_of_a_weight(tmp_path):
    """BERT with 128 columns and 128 float positions: the position table is no layer's weight, and the file is right."""
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
    config = BertConfig(vocab_size=1003, hidden_size=128, max_position_embeddings=128, **heads)
    torch.manual_seed(0)
    model = quantize(BertModel(config).eval(), nn.Linear)
    tokens = indices(1, 12, rows=1003)
    with quiet():
        program = export(Encoder(model), tokens, torch.ones_like(tokens))
    report = optimize(program, tmp_path / "model.pte", HALF).report
    assert report.verify.ok
    assert {table.proof.kind for table in report.tables} == {"rounded"}
    assert [table.shape for table in report.tables].count((128, 128)) >= 8


@pytest.mark.parametrize("setting", [_parameter(*each) for each in enumerate(zoo.settings())])
def test_zoo_in_half_precision(setting, request, tmp_path):
    """No table is said to be exact that is stored in halves; outputs are near, but for models that half cannot hold."""
    program = exported(setting, request.config.cache.mkdir("zoo"))
    if setting.name in BEYOND_HALF:
        with pytest.raises(CheckFailedError, match="output 0 differs"):
            optimize(program, tmp_path / "model.pte", HALF)
        return
    report = optimize(program, tmp_path / "model.pte", HALF).report
    assert report.loadable.ok
    assert report.verify.ok
    assert report.verify.max_rel_error < (EIGHT_BITS if setting.weights == "8da4w" else LIMIT)
    assert report.tables
    packed = [table.proof for table in report.tables if table.rung == "q4"]
    assert {proof.kind for proof in packed} == {"rounded"}
    assert max(proof.max_abs_error for proof in packed) < COARSE
