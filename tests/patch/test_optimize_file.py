"""`vkfuse optimize big.pte -o model.pte` as its own process, in which torch cannot be imported."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vkfuse.pte import model, read_pte
from vkfuse.pte.values import Extent
from vkfuse.pte.writer import write_pte

ROOT = Path(__file__).parents[2]
WITHOUT_TORCH = """
import sys
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchao", "executorch"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Nowhere())
from vkfuse.cli import main
main()
"""
LOOKUP, FUSED = "aten::embedding.out", "et_vk.embedding_q4gsw.default"
# name: operators on the CPU, Vulkan operators that it gains, delegates, crossings
FILES = {
    "joined": ({}, {FUSED: 1}, 1, 2),
    "padded": ({}, {FUSED: 1, "aten.slice_copy.Tensor": 1, "aten.clone.default": 1}, 1, 3),
    "ranked": ({"aten::cumsum.out": 1}, {FUSED: 1}, 2, 4),
    "packed": ({"aten::neg.out": 1}, {FUSED: 1}, 1, 2),
    "xnnpack": ({}, {FUSED: 1}, 2, 4),
    "methods": ({}, {FUSED: 2, "aten.embedding.default": -2}, 2, 4),
}


def run(*arguments, check=True, **options):
    """Run the command line in a process without torch."""
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, env=environment, capture_output=True, check=False, **options)
    assert not check or ran.returncode == 0, ran.stderr
    return ran


@pytest.fixture(scope="module")
def rewritten(files, tmp_path_factory):
    """Folder of the rewritten files, with a report of each."""
    folder = tmp_path_factory.mktemp("rewritten")
    for name in FILES:
        report = folder / f"{name}.json"
        run("optimize", files / f"{name}.pte", "-o", folder / f"{name}.pte", "-q", "--report", report)
    return folder


@pytest.mark.parametrize("name", FILES)
def test_lookups_move_to_vulkan(files, rewritten, name):
    """The table is proved from the written bytes, the lookup runs on Vulkan, the file is smaller and the report says so."""
    cpu, gained, delegates, crossings = FILES[name]
    report = json.loads((rewritten / f"{name}.json").read_text())
    (table,) = report["tables"]
    assert (table["rung"], table["proof"]["kind"], table["bits"]) == ("q4", "exact", 4)
    delegation, before = report["delegation"], report["baseline"]["delegation"]
    assert {kernel: op["count"] for kernel, op in delegation["cpu"].items()} == cpu
    assert delegation["subgraphs"] == delegates
    assert delegation["crossings"] == crossings
    changed = {
        operator: delegation["vulkan"].get(operator, 0) - before["vulkan"].get(operator, 0)
        for operator in delegation["vulkan"].keys() | before["vulkan"].keys()
    }
    assert {operator: count for operator, count in changed.items() if count} == gained
    assert report["loadable"]["ok"]
    assert report["baseline"]["path"] == str(files / f"{name}.pte")
    assert not report["verify"]["ran"]
    written = rewritten / f"{name}.pte"
    assert written.stat().st_size == report["output"]["bytes"]
    assert name == "packed" or report["output"]["bytes"] < report["baseline"]["bytes"]  # it was as small


@pytest.mark.parametrize("name", [name for name in FILES if name != "xnnpack"])
def test_outputs_are_the_same(files, rewritten, name):
    """Executed beside its input, at full and shortest sizes, the file gives the same bits (as on the real runtime)."""
    verify = pytest.importorskip("vkfuse.verify.files")
    old, new = read_pte(files / f"{name}.pte"), read_pte(rewritten / f"{name}.pte")
    for method in old.methods:
        options = verify.VerifyOptions(method=method.name, seeds=2)
        found = verify.verify_against_file(new, old, options)
        assert found.status == "same"
        assert len(found.runs) >= 4
        assert {output.max_abs for run in found.runs for output in run.outputs} == {0.0}
        assert [table.differing for table in found.tables] == [0]


def test_products_with_folded_matrices_are_fused(files, tmp_path):
    """Linears and matmuls by floats of a grid, of batches, of any number of outputs: fused, exact from the written bytes.

    A head and the table that it is tied to are stored once. On the real runtime the outputs are the input's to the bit.
    """
    written, report = tmp_path / "m.pte", tmp_path / "report.json"
    run("optimize", files / "multiplied.pte", "-o", written, "-q", "--report", report)
    said = json.loads(report.read_text())
    assert {(*table["consumers"], table["rung"], table["proof"]["kind"]) for table in said["tables"]} == {
        ("gather", "matmul", "q4", "exact"),
        ("matmul", "q4", "exact"),
    }
    assert len(said["tables"]) == 4
    vulkan = said["delegation"]["vulkan"]
    assert (vulkan["et_vk.linear_q4gsw.default"], vulkan[FUSED]) == (4, 1)
    assert not {"aten.linear.default", "aten.mm.default", "aten.embedding.default"} & {*vulkan}
    packs = sorted(len(entry.data) for entry in read_pte(written).named)[-4:]
    assert packs == [64 * 32, 64 * 32, 64 * 32, 72 * 32]  # tied: one
    verify = pytest.importorskip("vkfuse.verify.files")
    found = verify.verify_against_file(
        read_pte(written), read_pte(files / "multiplied.pte"), verify.VerifyOptions()
    )
    assert found.status == "same"


def test_other_backends_are_untouched(files, rewritten):
    """XNNPACK's blob and its named data are carried byte for byte."""
    old, new = read_pte(files / "xnnpack.pte"), read_pte(rewritten / "xnnpack.pte")
    assert bytes(new.methods[0].delegates[0].processed) == bytes(old.methods[0].delegates[0].processed)
    kept = {entry.key: bytes(entry.data) for entry in new.named}
    assert {entry.key: bytes(entry.data) for entry in old.named}.items() <= kept.items()


def test_what_the_plan_would_give_away_gets_its_own_place(files, rewritten):
    """The indices of a joined lookup share no memory with the delegate's output, and the buffer grows by their size."""
    (old,), (new,) = (read_pte(folder / "joined.pte").methods for folder in (files, rewritten))
    indices, out = (new.values[at] for at in (*new.inputs, *new.outputs))
    end = indices.allocation.offset + indices.nbytes
    assert end <= out.allocation.offset or out.allocation.offset + out.nbytes <= indices.allocation.offset
    assert end <= new.non_const_buffer_sizes[1]
    assert 0 < new.non_const_buffer_sizes[1] - old.non_const_buffer_sizes[1] <= 64


def test_stdin_to_stdout_and_again(files, rewritten, tmp_path):
    """`-` reads and writes; the same input gives the same bytes; a file that is optimized stays as it is."""
    expected = (rewritten / "joined.pte").read_bytes()
    piped = run("optimize", "-", "-o", "-", "-q", input=(files / "joined.pte").read_bytes())
    assert piped.stdout == expected
    again = tmp_path / "again"
    run("optimize", rewritten / "joined.pte", "-o", again, "-q", "--exact")
    assert again.read_bytes() == expected


def test_inspect_says_what_optimize_does(files, rewritten):
    """The plan has the rung, the grid and the sizes that the written file has."""
    told = json.loads(run("inspect", files / "padded.pte", "--format", "json").stdout)["tables"]
    made = json.loads((rewritten / "padded.json").read_text())["tables"]
    assert [{**row, "proof": None} for row in made] == told
    assert told[0]["how"] == ["grid-found", "columns-padded"]


def test_floats_on_no_grid_stay(files, tmp_path):
    """A table that was never quantized is untouched, says how close it came, and the file is the input's bytes."""
    output, report = tmp_path / "m.pte", tmp_path / "r.json"
    run("optimize", files / "folded.pte", "-o", output, "-q", "--exact", "--report", report)
    (row,) = json.loads(report.read_text())["tables"]
    assert (row["rung"], row["proof"]["kind"]) == ("untouched", "exact")
    assert row["reason"].startswith("not-exact: 0 of ")
    assert output.read_bytes() == (files / "folded.pte").read_bytes()


WRONG = {
    "truncated": (lambda data: data[:3000], 2, "the file is truncated"),
    "no program": (lambda data: data[:8] + bytes(400), 2, "vtable"),
    "options of lowering": (lambda data: data, 2, "--fp16"),
    "a method's name": (lambda data: data, 2, "without a name"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_bad_input_leaves_the_old_output(files, tmp_path, kind):
    """A damaged file, or an option that a file cannot take: exit 2, a remedy, and the output is what it was."""
    damage, code, word = WRONG[kind]
    source, output = tmp_path / "in", tmp_path / "out"
    source.write_bytes(damage((files / "joined.pte").read_bytes()))
    output.write_bytes(b"old")
    more = ["--fp16"] if word == "--fp16" else []
    given = f"prefill={source}" if kind == "a method's name" else source
    ran = run("optimize", given, "-o", output, *more, check=False)
    assert ran.returncode == code
    assert word in ran.stderr.decode()
    assert output.read_bytes() == b"old"


def test_what_does_not_load_is_not_written(files, tmp_path):
    """A file that the runtime fails on: exit 3 and no output; --partial writes it."""
    output = tmp_path / "m.pte"
    older = ["optimize", files / "fused.pte", "-o", output, "--runtime", "1.2"]
    ran = run(*older, check=False)
    assert ran.returncode == 3
    assert "--partial" in ran.stderr.decode()
    assert not output.exists()
    run(*older, "--partial", "-q")
    assert output.exists()


def test_what_can_be_mended_is(files, tmp_path):
    """A file with left-over dequantizing does not load; it is written with the table as floats, and the report says so."""
    report = tmp_path / "report.json"
    run("optimize", files / "unfused.pte", "-o", tmp_path / "m.pte", "-q", "--report", report)
    said = json.loads(report.read_text())
    assert [(row["code"], row["method"]) for row in said["repairs"]] == [("constants-folded", "forward")]
    assert (said["baseline"]["loadable"], said["loadable"]["ok"]) == (False, True)
    assert "torchao.dequantize_affine.default" not in said["delegation"]["vulkan"]


def test_killed_half_way(files, tmp_path):
    """A run that is killed while it writes leaves the old output, and the next one removes what it left."""
    large, output = tmp_path / "large", tmp_path / "m.pte"
    file = read_pte(files / "joined.pte")
    entry = model.NamedData(
        key="ballast", segment_index=0, data=memoryview(bytes(64 << 20)), data_at=Extent(0, 0)
    )
    with large.open("wb") as stream:
        write_pte(replace(file, named=(*file.named, entry)), stream)
    output.write_bytes(b"old")
    command = [sys.executable, "-c", WITHOUT_TORCH, "optimize", large, "-o", output]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as running:
        for line in running.stderr:
            if b"writing" in line:
                running.send_signal(signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL
    assert output.read_bytes() == b"old"
    run("optimize", large, "-o", output, "-q")
    assert {path.name for path in tmp_path.iterdir()} == {"large", "m.pte"}


def test_verify_sees_another_table(files, rewritten, tmp_path):
    """A file whose table is another one's fails against its input."""
    verify = pytest.importorskip("vkfuse.verify.files")
    new = read_pte(rewritten / "joined.pte")
    named = [
        replace(entry, data=memoryview(bytes(len(entry.data)))) if len(entry.data) == 2048 else entry
        for entry in new.named
    ]
    spoilt = tmp_path / "spoilt.pte"
    with spoilt.open("wb") as stream:
        write_pte(replace(new, named=tuple(named)), stream)
    old = read_pte(files / "joined.pte")
    found = verify.verify_against_file(read_pte(spoilt), old, verify.VerifyOptions(seeds=0))
    assert found.status == "differs"


def test_python_takes_a_file_too(files, rewritten, tmp_path):
    """`vkfuse.optimize` rewrites a .pte, whatever its name, and loads no torch for it."""
    source = tmp_path / "model.pt2"
    source.write_bytes((files / "joined.pte").read_bytes())
    code = (
        "import sys, vkfuse\n"
        "result = vkfuse.optimize(sys.argv[1], sys.argv[2], baseline='none')\n"
        "assert result.report.tables[0].rung == 'q4' and 'torch' not in sys.modules\n"
    )
    output = tmp_path / "out.pte"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, source, output], check=True, env=environment)
    assert output.read_bytes() == (rewritten / "joined.pte").read_bytes()
