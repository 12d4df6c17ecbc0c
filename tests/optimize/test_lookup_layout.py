"""Both layouts of a looked-up table: every value of it from the bytes of the file, and where one of them must not be."""

import json

import numpy as np
import pytest
import torch
from programs import BOTH, LanguageModel, Lookup, export, indices, lookup, quantize
from torch import nn
from typer.testing import CliRunner

import vkfuse
from vkfuse.cli import app
from vkfuse.measure.ledger import ledger
from vkfuse.options import BaselineChoice, LookupLayout, VulkanOptions
from vkfuse.pte import parse_pte, read_pte
from vkfuse.pte.vulkan import vulkan_graphs
from vkfuse.quiet import quiet
from vkfuse.verify.verify import VerifyOptions, verify_file

LOOKUP = "et_vk.embedding_q4gsw.default"
FLAT = VulkanOptions(lookup_layout=LookupLayout.FLAT)
NONE = BaselineChoice.NONE

TABLES = {  # name: (a module, its input, codes before the layout's, codes after it)
    "one row of indices": (Lookup, lambda: indices(7), (), ()),
    "1003 rows, 48 columns": (lambda: Lookup(1003, 48), lambda: indices(2, 7), ("columns-padded",), ()),
    "half precision": (lambda: Lookup().half(), lambda: indices(2, 3, 4), (), ("half-scales",)),
}


def _exported(module, example):
    with quiet():
        return export(quantize(module, nn.Embedding, group=16), example)


def _calls(path):
    """Weight bytes [rows, columns / 2], scales, group and flag of each lookup in a file."""
    for graph in vulkan_graphs(read_pte(path)).values():
        for call in graph.chain:
            if call.name == LOOKUP:
                weight, scales, group, _, linear = (graph.values[at] for at in call.args[:5])
                packed = np.frombuffer(weight.data, np.uint8).reshape(weight.dims)
                kind = np.float16 if scales.dtype.bytes == 2 else np.float32
                yield packed, np.frombuffer(scales.data, kind).reshape(scales.dims), group.value, linear.value


def _decoded(packed, scales, group, linear):
    """The float32 table, nibble by nibble: the even column is the low nibble of a linear table, the high one of a flat."""
    nibbles = (packed & 15, packed >> 4)[:: 1 if linear else -1]
    values = np.stack(nibbles, axis=-1).reshape(len(packed), -1).astype(np.float32) - 8
    return values * scales.astype(np.float32).repeat(group, axis=1)


@pytest.mark.parametrize("layout", LookupLayout)
@pytest.mark.parametrize("name", TABLES)
def test_the_whole_table_stands_in_the_file(name, layout, tmp_path):
    """Through the command line: all rows from the written bytes, bit for bit, the layout in both reports, equal bytes."""
    build, example, before, after = TABLES[name]
    module = build()
    exported = _exported(module, example())
    program, path, report = (tmp_path / part for part in ("model.pt2", "model.pte", "report.json"))
    with quiet():
        torch.export.save(exported, program)
    options = ["--baseline", "none", "--lookup-layout", layout.value, "--report", str(report)]
    ran = CliRunner().invoke(app, ["optimize", str(program), "-o", str(path), *options])
    assert ran.exit_code == 0, ran.output
    ((packed, scales, group, linear),) = _calls(path)
    with torch.no_grad():
        rows, columns = module.table.weight.shape
        wanted = module.table(torch.arange(rows)).numpy()
    assert linear == (layout is LookupLayout.LINEAR)
    table = _decoded(packed, scales, group, linear)[:, :columns].astype(wanted.dtype)
    assert table.tobytes() == wanted.tobytes()
    (row,) = json.loads(report.read_text())["tables"]
    flat = () if linear else ("flat-layout",)
    steps = ("indices-flattened",) if exported.example_inputs[0][0].ndim > 1 else ()
    assert tuple(row["how"]) == (*before, *flat, *after, *steps)
    assert row["bytes_after"] == packed.nbytes + scales.nbytes
    read = CliRunner().invoke(app, ["report", str(path), "--format", "json"])
    (again,) = json.loads(read.stdout)["tables"]
    assert (tuple(again["how"]), again["bytes_after"]) == (flat, row["bytes_after"])
    found = {finding["code"] for finding in json.loads(read.stdout)["loadable"]["findings"]}
    assert ("needs-8-bit-storage" in found) == (not linear)


def test_a_table_that_a_linear_shares_is_linear(tmp_path):
    """Tied to a head in one method, looked up alone in another: one linear pack for both; a third table is flat."""
    torch.manual_seed(0)
    module = LanguageModel(128)
    module.head.weight = module.table.weight
    alone = Lookup(128)
    alone.table.weight = module.table.weight
    with quiet():
        quantize(quantize(module, nn.Embedding), nn.Linear)
        quantize(alone, nn.Embedding)
        methods = {
            "whole": export(module, indices(2, 7)),
            "embed": export(alone, indices(2, 7), dynamic=BOTH),
            "other": lookup(2, 7)(),
        }
    path = tmp_path / "model.pte"
    report = vkfuse.optimize(methods, path, baseline=NONE, vulkan=FLAT).report
    shapes = {tuple(packed.shape): linear for packed, _, _, linear in _calls(path)}
    assert shapes == {(128, 32): True, (100, 32): False}
    packs = [entry for entry in ledger(read_pte(path)) if "uint8[128,32]" in entry.label]
    assert [(entry.count, entry.bytes) for entry in packs] == [(1, 128 * 32)]
    assert {row.shape: "flat-layout" in row.how for row in report.tables if "gather" in row.consumers} == {
        (128, 64): False,
        (100, 64): True,
    }
    assert report.verify.ok


def test_flat_bytes_marked_linear_are_found(tmp_path):
    """The same nibbles read in the other order: verify says which operator departs."""
    with quiet():
        exported = lookup(2, 7)()
    flat, linear = tmp_path / "flat.pte", tmp_path / "linear.pte"
    vkfuse.optimize(exported, flat, baseline=NONE, vulkan=FLAT)
    vkfuse.optimize(exported, linear, baseline=NONE)
    ((packed, *_),) = _calls(flat)
    ((other, *_),) = _calls(linear)
    data = linear.read_bytes()
    assert data.count(other.tobytes()) == 1
    wrong = parse_pte(data.replace(other.tobytes(), packed.tobytes()))
    assert verify_file(parse_pte(data), exported, VerifyOptions(seeds=1)).ok
    verdict = verify_file(wrong, exported, VerifyOptions(seeds=1))
    assert (verdict.status, verdict.departure.operator) == ("differs", LOOKUP)
