"""A whole model that vkfuse made: a decoder with 8-bit dynamic linears, two rows, any length."""

import faults
import pytest
import torch

from vkfuse.demo import DecoderConfig, quantized_decoder
from vkfuse.options import BaselineChoice, Options
from vkfuse.pipeline import optimize
from vkfuse.program.load import from_exported
from vkfuse.pte import parse_pte, read_pte
from vkfuse.quiet import quiet
from vkfuse.verify.reference import Arithmetic, Reference
from vkfuse.verify.session import run_file
from vkfuse.verify.verify import VerifyOptions, verify_file

CONFIG = DecoderConfig(
    vocabulary=96, width=64, heads=2, key_heads=1, hidden=96, layers=1, longest=24, group_size=32
)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """The decoder's file and program."""
    path = tmp_path_factory.mktemp("decoder") / "decoder.pte"
    with quiet(verbose=False):
        exported = quantized_decoder(CONFIG)
        optimize(exported, path, Options(verify=False, baseline=BaselineChoice.NONE))
    return path, from_exported(exported).exported


def test_passes_with_its_errors_and_tables(decoder):
    """It passes at every length that is tried, each weight is the program's, and where eager is left is said."""
    path, exported = decoder
    verdict = verify_file(path, exported, VerifyOptions(seeds=2))
    assert verdict.ok, verdict.message
    lengths = {run.outputs[0].shape[1] for run in verdict.runs}
    assert {1, 24} <= lengths
    assert len(verdict.tables) == 9
    assert all(table.matches and table.differing == 0 for table in verdict.tables)
    assert "qparams-nudged" in {applied.code for applied in verdict.applied}


@pytest.mark.parametrize("length", [1, 7, 24])
def test_each_length_is_the_programs(decoder, length):
    """At lengths one, seven and the largest the file's outputs are the program's in the runtime's arithmetic."""
    path, exported = decoder
    tokens = torch.randint(0, 96, (2, length), generator=torch.Generator().manual_seed(length))
    (got,) = run_file(read_pte(path))((tokens,))
    (expected,) = Reference(exported)((tokens,), arithmetic=Arithmetic(dynamic_rows=True))
    assert float((got - expected).abs().max() / expected.abs().max()) < 0.02
    assert float((got.argmax(-1) == expected.argmax(-1)).float().mean()) > 0.9


@pytest.mark.parametrize(
    ("operator", "argument"), [("et_vk.embedding_q4gsw.default", 0), ("et_vk.linear_dq8ca_q4gsw.default", 3)]
)
def test_a_fault_deep_inside_is_placed(decoder, operator, argument):
    """Of all operators of the model the one whose weight was changed is named, with the line of the model's source."""
    path, exported = decoder
    data = faults.with_constant(
        path.read_bytes(), operator, argument, lambda weight: (weight >> 4) | (weight << 4)
    )
    verdict = verify_file(parse_pte(data), exported, VerifyOptions(seeds=0))
    assert verdict.status == "differs"
    assert (verdict.departure.operator, verdict.departure.behaviours) == (operator, ())
    graph, call = faults.call_of(parse_pte(data), operator)
    assert verdict.departure.where.endswith(f":{graph.chain.index(call)}")
    assert "demo.py:" in verdict.departure.source
    assert verdict.departure.where in {table.where for table in verdict.tables if not table.passed}
