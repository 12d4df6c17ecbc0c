"""`vkfuse optimize --cache DIR`, in processes of their own."""

import json

import torch
from programs import LanguageModel, export, indices, quantize
from torch import nn

from vkfuse.quiet import quiet


def test_runs_share_a_folder(start, tmp_path):
    """The second of two models of one graph is not lowered; its report says so, and what was checked all the same."""
    for seed in (0, 1):
        torch.manual_seed(seed)
        with quiet():
            program = export(quantize(LanguageModel(128), nn.Embedding), indices(2, 7))
            torch.export.save(program, tmp_path / f"{seed}.pt2")
        report = tmp_path / f"{seed}.json"
        process = start(
            *("optimize", tmp_path / f"{seed}.pt2", "-o", tmp_path / f"{seed}.pte"),
            *("--cache", tmp_path / "entries", "--report", report, "-q"),
        )
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    said = json.loads(report.read_text())
    assert any(note.startswith("cache: not lowered in this run") for note in said["notes"])
    assert "lowering" not in {stage["name"] for stage in said["cost"]["stages"]}
    assert said["verify"]["ok"]


def test_check_takes_no_cache(vkfuse, program, tmp_path):
    """What is compared was built whole."""
    ran = vkfuse("optimize", program, "--check", program, "--cache", tmp_path)
    assert ran.code == 2
    assert "--check builds all of the file again" in ran.err
