"""Real architectures, quantized as users do: fused, proved, loadable, and right."""

from functools import partial

import pytest
import torch
from outcome import worst_error
from real_models import causal, encoder, llama, qwen2, qwen3

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
    assert worst_error(outcome.exported, outcome.path) < TANH


@pytest.mark.parametrize(
    ("make", "layers", "dynamic_activations", "batch", "bound"),
    [(llama, 2, True, 1, ROUNDED), (qwen2, 1, False, 2, SUMS), (qwen3, 1, True, 2, ROUNDED)],
    ids=["llama", "qwen2", "qwen3"],
)
def test_tied_language_model(make, layers, dynamic_activations, batch, bound, outcome_of):
    """A head tied to the embedding, grouped queries, a dynamic length: one pack for both, right at every length."""
    outcome = outcome_of(partial(_tied, make, dynamic_activations, batch))
    report = outcome.report
    tied = [table for table in report.tables if set(table.consumers) == {"gather", "matmul"}]
    assert [table.shape for table in tied] == [(1003, 128)]
    assert {table.rung for table in report.tables} == {"q4"}
    assert len(report.tables) == 1 + layers * 7
    assert report.loadable.ok
    lengths = [(torch.randint(0, 1003, (batch, length)),) for length in (2, 33, 64)]
    assert worst_error(outcome.exported, outcome.path, lengths) < bound


def _tied(make, dynamic_activations, batch):
    return causal(make(), dynamic_activations=dynamic_activations, batch=batch)
