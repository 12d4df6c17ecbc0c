"""Real architectures, quantized as users do: fused, proved, loadable, and right."""

from functools import partial

import pytest
import torch
from outcome import worst_error
from real_models import causal, encoder, llama

from vkfuse.program.load import from_exported
from vkfuse.verify.verify import VerifyOptions, verify_file

SUMS = 2e-5  # float32 products summed in another order, over two layers
TANH = 2e-3  # the runtime computes every gelu by tanh: 5e-4 a layer, of outputs up to 0.3 after six
ROUNDED = 2e-2  # activations that round to a neighbour, of 256 steps


@pytest.mark.parametrize("batch", [1, 2], ids="batch-{}".format)
@pytest.mark.parametrize("linears", [False, True], ids=["embedding", "all-linears"])
def test_sentence_encoder(batch, linears, outcome_of):
    """MiniLM with its published weights: every table that an input reaches is 4-bit, the hidden states are eager's."""
    outcome = outcome_of(partial(encoder, batch=batch, linears=linears))
    report = outcome.report
    words = next(table for table in report.tables if table.shape == (30522, 384))
    assert words.rung == "q4"
    folded = [table.reason.partition(":")[0] for table in report.tables if table.rung != "q4"]
    assert folded == 2 * ["constant-indices"]  # positions and token types: no input chooses their rows
    assert len(report.tables) == 3 + (6 * 6 if linears else 0)
    assert all(table.proof.kind == "exact" for table in report.tables)
    assert words.bytes_after == 30522 * (384 // 2 + 384 // 32 * 4)
    assert report.loadable.ok
    assert report.verify.ok
    assert worst_error(outcome.exported, outcome.path) < TANH


@pytest.mark.parametrize("dynamic_activations", [False, True], ids=["int4", "8da4w"])
def test_tied_language_model(dynamic_activations, outcome_of):
    """A head tied to the embedding, grouped queries, a dynamic length: one pack for both, right at every length."""
    outcome = outcome_of(partial(_tied, dynamic_activations))
    report = outcome.report
    tied = [table for table in report.tables if set(table.consumers) == {"gather", "matmul"}]
    assert [table.shape for table in tied] == [(1003, 128)]
    assert {table.rung for table in report.tables} == {"q4"}
    assert len(report.tables) == 1 + 2 * 7
    assert report.loadable.ok
    assert report.delegation.subgraphs == 1
    lengths = [(torch.randint(0, 1003, (1, length)),) for length in (1, 7, 64)]
    assert worst_error(outcome.exported, outcome.path, lengths) < (ROUNDED if dynamic_activations else SUMS)
    program = from_exported(outcome.exported).exported
    for inputs in lengths:
        verdict = verify_file(outcome.path, program, VerifyOptions(seeds=1, inputs=(inputs, {})))
        assert verdict.ok, verdict.message


def _tied(dynamic_activations):
    return causal(llama(), dynamic_activations=dynamic_activations, batch=1)
