"""`vkfuse.Partitioner` in an export script: the file that `optimize` makes, without what takes the file itself."""

import json

import pytest
import torch
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import to_edge, to_edge_transform_and_lower
from programs import LanguageModel, export, indices, quantize
from torch import nn

import vkfuse
from vkfuse.errors import LoweringError, VkfuseError
from vkfuse.pte import read_pte
from vkfuse.report.build import measure
from vkfuse.verify.verify import VerifyOptions, verify_file


class _Counting(LanguageModel):
    """The model, which also counts its calls in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, tokens):
        self.calls.add_(1)
        return super().forward(tokens) + self.calls


def _program(kind=LanguageModel, length=8):
    torch.manual_seed(0)
    made = quantize(quantize(kind(), nn.Embedding), nn.Linear)
    return export(made, indices(1, length))


def _lowered(programs, *partitioners, path):
    with torch.no_grad():
        edge = to_edge_transform_and_lower(programs, partitioner=[*partitioners])
        path.write_bytes(edge.to_executorch().buffer)
    return read_pte(path)


def test_the_file_is_the_one_that_optimize_writes(tmp_path):
    """Delegates, operators, tables and bytes of constants are those of `optimize`; it computes the program."""
    report = tmp_path / "report.json"
    pte = _lowered(_program(), vkfuse.Partitioner(report=report), path=tmp_path / "guest.pte")
    made = vkfuse.optimize(_program(), tmp_path / "own.pte", baseline="none").report
    own = read_pte(tmp_path / "own.pte")
    assert measure(pte).delegation == measure(own).delegation
    kinds = ("embedding_q4gsw weight", "embedding_q4gsw scales", "linear_q4gsw weight", "linear_q4gsw scales")
    sizes = [
        {e.label: e.bytes for e in measure(p).ledger if any(k in e.label for k in kinds)} for p in (pte, own)
    ]
    assert sizes[0]
    assert sizes[0] == sizes[1]
    assert verify_file(pte, _program(), VerifyOptions(seeds=1)).ok
    written = json.loads(report.read_text())
    assert [(row["name"], row["rung"]) for row in written["tables"]] == [
        (t.name, t.rung) for t in made.tables
    ]
    assert written["delegation"]["subgraphs"] == 1
    assert written["delegation"]["crossings"] == made.delegation.crossings
    assert "not read back" in written["notes"][0]
    assert written["verify"] is None


def test_other_partitioners_stay_what_they_were(tmp_path):
    """ExecuTorch's own makes the same bytes before and after one of ours has been at work."""
    program = export(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), torch.randn(2, 8))
    _lowered(program, VulkanPartitioner(), path=tmp_path / "before.pte")
    _lowered(program, vkfuse.Partitioner(), path=tmp_path / "ours.pte")
    _lowered(program, VulkanPartitioner(), path=tmp_path / "after.pte")
    assert (tmp_path / "before.pte").read_bytes() == (tmp_path / "after.pte").read_bytes()


def test_several_programs_of_one_state(tmp_path):
    """Whether two programs share a buffer's memory has to be said; shared, no delegate keeps it."""
    programs = {"one": _program(_Counting), "many": _program(_Counting, length=4)}
    with pytest.raises(LoweringError, match="calls") as refused:
        _lowered(programs, vkfuse.Partitioner(), path=tmp_path / "no.pte")
    assert "shared_state=True" in refused.value.hint
    reports = tmp_path / "kept.txt", tmp_path / "shared.txt"
    own, one = (
        vkfuse.Partitioner(shared_state=s, report=r) for s, r in zip((False, True), reports, strict=True)
    )
    kept = _lowered(programs, own, path=tmp_path / "kept.pte")
    shared = _lowered(programs, one, path=tmp_path / "shared.pte")
    crossings = [measure(pte).delegation.crossings for pte in (kept, shared)]
    assert crossings[0] < crossings[1]
    said = [" ".join(report.read_text().split()) for report in reports]
    for name in ("forward", "program 2"):
        assert f"{name} keeps 1 buffer (4 bytes) on the GPU: calls" in said[0]
    assert "share state where the application loads the file with" in said[1]
    assert "on the GPU" not in said[1]


def test_why_state_stays_outside(tmp_path):
    """A buffer of whole numbers is no delegate's, and the report says so."""
    report = tmp_path / "report.txt"

    class Steps(_Counting):
        def __init__(self):
            super().__init__()
            self.calls = torch.zeros(1, dtype=torch.int32)

    _lowered(_program(Steps), vkfuse.Partitioner(report=report), path=tmp_path / "steps.pte")
    assert "forward keeps 1 buffer (4 bytes) outside of delegates, it holds no floats: calls" in " ".join(
        report.read_text().split()
    )


def test_the_measured_difference_of_float32(tmp_path):
    """A bfloat16 program lowered in float32 says how far apart they are; as it is, what would take it off the CPU."""
    for options, text in (
        ({}, "takes it off the CPU, and stores 144 bytes of bfloat16 numbers as twice as many"),
        ({"compute": "float32"}, "of the largest value apart on the example inputs"),
    ):
        report = tmp_path / "report.txt"
        program = export(nn.Sequential(nn.Linear(8, 8), nn.ReLU()).bfloat16(), torch.randn(2, 8).bfloat16())
        _lowered(program, vkfuse.Partitioner(report=report, **options), path=tmp_path / "bf16.pte")
        assert text in " ".join(report.read_text().split())


def test_what_a_partitioner_cannot_do(tmp_path):
    """Gates are refused; a program that was decomposed before is guarded, and the report says that no table was packed."""
    with pytest.raises(VkfuseError, match="no file to check"):
        vkfuse.Partitioner(max_size="1MiB")
    with pytest.raises(VkfuseError, match="no option 'sise'"):
        vkfuse.Partitioner(sise=1)
    report = tmp_path / "report.txt"
    program = export(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), torch.randn(2, 8))
    to_edge(program).to_backend(vkfuse.Partitioner(report=report)).to_executorch()
    assert "decomposed before the partitioner" in " ".join(report.read_text().split())
