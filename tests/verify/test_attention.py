"""Attention over caches: one delegate that reads no mask, and computes what the real runtime was seen to.

attention_verdicts.json: the last row of each call's output, by a runtime of ExecuTorch 1.5.0 over Mesa's lavapipe; on the
driver of an H100 (580.159.04) the same within 2e-7, halves within 4e-4.
"""

import json
from pathlib import Path

import pytest
import torch
from attention_programs import KINDS, calls, program

import vkfuse
from vkfuse.rewrite.repairs import cached_attention
from vkfuse.verify.session import run_file

VERDICTS = json.loads(Path(__file__).with_name("attention_verdicts.json").read_text("utf-8"))


@pytest.mark.parametrize("name", KINDS)
def test_attention_over_caches(name, tmp_path, monkeypatch):
    """The runtime's numbers, verify's and the program's are the same, call after call of one method."""
    kind, path = KINDS[name], tmp_path / "model.pte"
    monkeypatch.setattr(cached_attention, "LEAST", 1)
    exported = program(kind)
    report = vkfuse.optimize(exported, path, baseline="none", runtime="1.5.0", fp16=kind.fp16).report
    assert report.verify.ok
    assert report.delegation.vulkan["llama.custom_sdpa.default"] == 1
    assert report.delegation.vulkan["update_cache.default"] == 2
    assert report.delegation.subgraphs == 1
    assert report.delegation.crossings <= 4
    session, eager, near = run_file(path), exported.module(), 4e-3 if kind.fp16 else 2e-6
    for inputs, seen in zip(calls(kind), VERDICTS[name], strict=True):
        (ours,), theirs = session(inputs), eager(*inputs)
        for each in (ours[0, -1], theirs[0, -1]):
            torch.testing.assert_close(each, torch.tensor(seen), rtol=near, atol=near)
