"""The lookups' shaders: named in the report from the bytes that were written, and stored in the file on request."""

import json

import pytest
import torch
from programs import LanguageModel, Lookup, export, indices, lookup, quantize
from torch import nn
from typer.testing import CliRunner

import vkfuse
from vkfuse.cli import app
from vkfuse.errors import FormatError
from vkfuse.glsl.manifest import shipped_spirv
from vkfuse.glsl.variants import variant_named
from vkfuse.lint import lint
from vkfuse.measure.ledger import ledger
from vkfuse.measure.shaders import stored_shaders
from vkfuse.options import BaselineChoice, VulkanOptions
from vkfuse.pte import parse_pte, read_pte
from vkfuse.pte.vulkan import vulkan_graphs
from vkfuse.quiet import quiet
from vkfuse.report.build import measure
from vkfuse.runtime.versions import find_runtime

NONE = BaselineChoice.NONE
ROWS = 4104 * 8  # blocks of rows beyond the texels that every device has

CASES = {  # name: (options of the command, rows of the table, shaders)
    "texture": ((), 100, ("float_scales_linear_weight_texture2d_texture3d_float",)),
    "buffer": (("--storage", "buffer"), 100, ("float_scales_linear_weight_texture2d_buffer_float",)),
    "half": (("--fp16",), 100, ("linear_weight_texture2d_texture3d_half",)),
    "flat": (("--lookup-layout", "flat"), 100, ("float_scales_texture3d_float",)),
    "by device": (
        (),
        ROWS,
        (
            "float_scales_linear_weight_texture2d_buffer_float",
            "float_scales_linear_weight_buffer_buffer_float",
        ),
    ),
}


def _graph(path):
    (graph,) = vulkan_graphs(read_pte(path)).values()
    return graph


@pytest.mark.parametrize("case", CASES)
def test_embedded_shaders_are_those_that_the_report_names(case, tmp_path):
    """Through the command line: names, SPIR-V byte for byte, every byte in the ledger, and `report` says the same."""
    options, rows, endings = CASES[case]
    names = [f"embedding_q4gsw_{ending}" for ending in endings]
    program, path, json_report = (tmp_path / part for part in ("model.pt2", "model.pte", "report.json"))
    with quiet():
        torch.export.save(lookup(2, 7, rows=rows)(), program)
    command = ["optimize", str(program), "-o", str(path), "--baseline", "none", "--report", str(json_report)]
    ran = CliRunner().invoke(app, [*command, "--embed-shader", *options])
    assert ran.exit_code == 0, ran.output
    report = json.loads(json_report.read_text())
    (site,) = report["lookups"]
    assert (site["table"], site["method"], site["where"]) == ("table.weight", "forward", "forward/0")
    assert [shader["name"] for shader in site["shaders"]] == names
    assert all(shader["runtimes"] == ["1.3", "1.4", "1.5"] for shader in site["shaders"])
    assert [bool(shader["when"]) for shader in site["shaders"]] == [len(names) > 1] * len(names)
    assert set(names) <= find_runtime("1.5").shaders
    stored = [bytes(shader.data) for shader in _graph(path).shaders]
    assert stored == [shipped_spirv(variant_named(name)) for name in names]
    assert [(row["name"], row["bytes"]) for row in report["shaders"]] == [
        (name, len(spirv)) for name, spirv in zip(names, stored, strict=True)
    ]
    entries = ledger(read_pte(path))
    assert sum(entry.bytes for entry in entries) == path.stat().st_size
    assert {entry.label: entry.bytes for entry in entries if entry.kind == "shader"} == {
        f"vulkan:forward/0 shader {name}": len(spirv) for name, spirv in zip(names, stored, strict=True)
    }
    again = json.loads(CliRunner().invoke(app, ["report", str(path), "--format", "json"]).stdout)
    assert again["shaders"] == report["shaders"]
    assert [row["shaders"] for row in again["lookups"]] == [site["shaders"]]


def test_nothing_is_embedded_unless_asked(tmp_path):
    """The same tables and the same verdict without the option; upstream's serializer is as it was."""
    exported = _two_tables()
    with_shader, without = tmp_path / "with.pte", tmp_path / "without.pte"
    report = vkfuse.optimize(
        exported, with_shader, baseline=NONE, vulkan=VulkanOptions(embed_shader=True)
    ).report
    plain = vkfuse.optimize(exported, without, baseline=NONE).report
    assert (len(report.shaders), plain.shaders) == (1, ())  # two tables, one shader
    assert [row.table for row in plain.lookups] == ["first.table.weight", "second.table.weight"]
    assert report.lookups == plain.lookups
    assert report.tables == plain.tables
    assert report.verify.ok
    assert plain.verify.ok
    grown = with_shader.stat().st_size - without.stat().st_size
    assert report.shaders[0].bytes <= grown < report.shaders[0].bytes + 512


class _Two(nn.Module):
    """Two tables, looked up with the same indices in two orders."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Lookup(), Lookup()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.first(tokens) * self.second(tokens.flip(0))


def _two_tables():
    torch.manual_seed(0)
    with quiet():
        return export(quantize(_Two(), nn.Embedding), indices(2, 7))


def test_only_lookups_embed_shaders(tmp_path):
    """A whole model with a tied head: one row and one shader, those of its lookup."""
    torch.manual_seed(0)
    module = LanguageModel(128)
    module.head.weight = module.table.weight
    with quiet():
        quantize(quantize(module, nn.Embedding), nn.Linear)
        tied = export(module, indices(2, 7))
    report = vkfuse.optimize(
        tied, tmp_path / "model.pte", baseline=NONE, verify=False, vulkan=VulkanOptions(embed_shader=True)
    ).report
    (site,) = report.lookups
    assert site.table == "table.weight"
    assert [shader.name for shader in site.shaders] == [shader.name for shader in report.shaders]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """A file that carries one shader, and where its SPIR-V stands."""
    path = tmp_path_factory.mktemp("embedded") / "model.pte"
    with quiet():
        exported = lookup(2, 7)()
    vkfuse.optimize(exported, path, baseline=NONE, verify=False, vulkan=VulkanOptions(embed_shader=True))
    data = path.read_bytes()
    (shader,) = _graph(path).shaders
    assert data.count(bytes(shader.data)) == 1
    return data, data.index(bytes(shader.data)), shader


def test_a_changed_shader_has_no_name(embedded):
    """One bit off and it is somebody else's: no name, another hash, the same place in the ledger."""
    data, at, shader = embedded
    changed = bytearray(data)
    changed[at + shader.length - 1] ^= 1
    measured = measure(parse_pte(bytes(changed)))
    (row,) = measured.shaders
    assert (row.name, row.bytes) == ("", shader.length)
    (entry,) = [entry for entry in measured.ledger if entry.kind == "shader"]
    assert entry.label == f"vulkan:forward/0 shader {row.sha256[:12]}"
    assert lint(parse_pte(bytes(changed))) == ()


def test_a_shader_outside_of_the_blob_is_refused(embedded):
    """A length that leaves the delegate's bytes: an error that names the field, never a read."""
    data, _, shader = embedded
    at = data.rindex(shader.length.to_bytes(8, "little"))  # in the graph; before it only in the blob's header
    (graph,) = vulkan_graphs(parse_pte(data)).values()
    room = graph.bytes_at.end - shader.at.offset  # what follows a shader is filled up to 16 bytes
    for length in (room + 1, 1 << 40, (1 << 64) - 1):
        changed = data[:at] + length.to_bytes(8, "little") + data[at + 8 :]
        with pytest.raises(FormatError, match=r"shaders\[0\]"):
            vulkan_graphs(parse_pte(changed))


def test_hashing_is_bounded(embedded):
    """Many shaders over the same bytes: no more is hashed than the blob has."""
    data, _, shader = embedded
    (graph,) = vulkan_graphs(parse_pte(data)).values()
    object.__setattr__(graph, "shaders", (shader,) * 1000)
    hashed = [stored for stored in stored_shaders(graph) if stored.sha256]
    assert 1 <= len(hashed) <= graph.bytes_at.end // shader.length
