"""`vkfuse optimize prefill=A.pt2 decode=B.pt2`: one file with both methods, each table stored once."""

import hashlib
import json
import re

import pytest
import torch
from programs import export, indices, quantize
from torch import nn

from vkfuse.measure.ledger import ledger
from vkfuse.pte import read_pte
from vkfuse.quiet import quiet

LAYERS = 2
SHAPES = [(1003, 128), *LAYERS * [(128, 128), (64, 128), (64, 128), (128, 128)]]
SHAPES += LAYERS * [(256, 128), (256, 128), (128, 256)]


class _Llama(nn.Module):
    """A small random Llama, tied: token ids [1, length] -> logits [1, length, 1003]."""

    def __init__(self) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - seconds

        super().__init__()
        config = LlamaConfig(
            vocab_size=1003,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )
        self.model = LlamaForCausalLM(config)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=tokens, use_cache=False).logits


@pytest.fixture(scope="module")
def folder(start, tmp_path_factory):
    """prefill.pt2 and decode.pt2 of one model, model.pte of both, model.json and the process' (code, stdout, stderr)."""
    path = tmp_path_factory.mktemp("methods")
    torch.manual_seed(0)
    with quiet():
        module = quantize(quantize(_Llama(), nn.Embedding), nn.Linear)
        torch.export.save(export(module, indices(1, 16)), path / "prefill.pt2")
        torch.export.save(export(module, indices(1, 1)), path / "decode.pt2")
    sources = [f"{name}={path / name}.pt2" for name in ("prefill", "decode")]
    options = ["--baseline=none", f"--report={path / 'model.json'}"]
    process = start("optimize", *sources, "-o", path / "model.pte", *options)
    out, err = process.communicate(timeout=300)
    return path, (process.returncode, out.decode(), err.decode())


def test_both_methods_and_what_is_said_of_them(folder):
    """Exit code 0, a row for each method on stdout, the usual stages on stderr; both methods verified."""
    path, (code, out, err) = folder
    assert code == 0, err
    assert [line.removeprefix("vkfuse: ") for line in err.splitlines()] == [
        "loading",
        "planning",
        "lowering",
        "reading back",
        "proving",
        "verifying",
        "reporting",
    ]
    assert re.search("^Methods\n.*\n  prefill ", out, re.MULTILINE)
    assert {method.name for method in read_pte(path / "model.pte").methods} == {"prefill", "decode"}
    report = json.loads((path / "model.json").read_text())
    assert [row["name"] for row in report["methods"]] == ["prefill", "decode"]
    for row in report["methods"]:
        source = path / f"{row['name']}.pt2"
        assert row["input"] == {
            "path": str(source),
            "bytes": source.stat().st_size,
            "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        }
        assert row["delegation"]["subgraphs"] == 1
        assert (row["verify"]["ran"], row["verify"]["ok"]) == (True, True)
    assert report["verify"]["ok"] is True
    assert report["delegation"]["subgraphs"] == 2
    assert report["input"]["bytes"] == sum(row["input"]["bytes"] for row in report["methods"])


def test_each_table_is_stored_once(folder, vkfuse):
    """By the ledger: each pack and its scales for both methods, and hardly more than the file of one method alone."""
    path, _ = folder
    entries = [e for e in ledger(read_pte(path / "model.pte")) if re.search("q4gsw (weight|scales)", e.label)]
    packs = [entry for entry in entries if "weight uint8" in entry.label]
    stored = [(-(-rows // 8) * 8, columns // 2) for rows, columns in SHAPES]
    assert sum(entry.count for entry in packs) == len(SHAPES)
    assert sum(entry.bytes for entry in packs) == sum(rows * columns for rows, columns in stored)
    assert all("vulkan:decode" in entry.label and "vulkan:prefill" in entry.label for entry in entries)
    tables = json.loads((path / "model.json").read_text())["tables"]
    assert sorted(table["shape"] for table in tables) == sorted(map(list, SHAPES))
    assert {tuple(table["methods"]) for table in tables} == {("prefill", "decode")}
    assert sum(table["bytes_after"] for table in tables) == sum(entry.bytes for entry in entries)
    ran = vkfuse(
        "optimize", path / "prefill.pt2", "-o", path / "one.pte", "-q", "--no-verify", "--baseline=none"
    )
    assert ran.code == 0
    assert (path / "model.pte").stat().st_size < 1.1 * (path / "one.pte").stat().st_size


def test_report_tells_the_methods_from_the_file_alone(folder, vkfuse):
    """`vkfuse report` has a row for each method, and a row for each table that names both."""
    path, _ = folder
    report = json.loads(vkfuse("report", path / "model.pte", "--format=json").out)
    assert {row["name"]: row["delegation"]["subgraphs"] for row in report["methods"]} == {
        "prefill": 1,
        "decode": 1,
    }
    total = report["delegation"]["vulkan"]
    assert total == {
        name: sum(row["delegation"]["vulkan"].get(name, 0) for row in report["methods"]) for name in total
    }
    planned = json.loads((path / "model.json").read_text())["tables"]
    assert sorted(t["bytes_after"] for t in report["tables"]) == sorted(t["bytes_after"] for t in planned)
    assert all(set(table["methods"]) == {"prefill", "decode"} for table in report["tables"])


@pytest.mark.parametrize("method", ["prefill", "decode"])
def test_verify_takes_a_method(method, folder, vkfuse):
    """`vkfuse verify --method` judges each method of the file by its own program."""
    path, _ = folder
    ran = vkfuse(
        "verify", path / "model.pte", "--against", path / f"{method}.pt2", "--method", method, "--seeds=0"
    )
    assert ran.code == 0, ran.err


BAD = {  # what is wrong: (arguments, words of the message)
    "no name": (("a.pt2", "b.pt2"), "a.pt2: one of 2 programs has no name"),
    "one name": (("a=a.pt2", "b.pt2"), "b.pt2: one of 2 programs has no name"),
    "one name twice": (("a=a.pt2", "a=b.pt2"), "two programs are called 'a'"),
    "a name that is none": (("pre-fill=a.pt2", "b=b.pt2"), "'pre-fill' is no name for a method"),
    "an empty name": (("=a.pt2",), "'' is no name for a method"),
    "no path": (("a=",), "no path after the name"),
    "stdin twice": (("a=-", "b=-"), "stdin holds one program"),
    "no such file": (("a=absent.pt2", "b=b.pt2"), "absent.pt2: No such file"),
}


@pytest.mark.parametrize("command", ["optimize", "inspect"])
@pytest.mark.parametrize("what", BAD)
def test_bad_arguments(what, command, vkfuse, tmp_path):
    """Exit code 2, one line and a remedy, nothing written."""
    arguments, words = BAD[what]
    output = ["-o", tmp_path / "model.pte"] if command == "optimize" else []
    ran = vkfuse(command, *arguments, *output)
    assert ran.code == 2
    *_, message, hint = ran.err.splitlines()
    assert words in message
    assert hint.startswith("  hint: ")
    assert list(tmp_path.iterdir()) == []


def test_path_with_an_equals_sign(program, vkfuse, tmp_path, monkeypatch):
    """After a slash, or after a name, `=` is a part of the path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.pt2").write_bytes(program.read_bytes())
    for argument, name in (("./a=b.pt2", "forward"), ("c=a=b.pt2", "c")):
        ran = vkfuse("inspect", argument, "--format=json")
        (row,) = json.loads(ran.out)["methods"]
        assert (row["name"], row["input"]["path"]) == (name, "a=b.pt2")
