"""The public entry, its options, and its last check of what it wrote."""

import json
import subprocess
import sys
from functools import cache

import pytest
import torch
from outcome import worst_error
from programs import LanguageModel, export, indices, lookup, quantize, quantize_dynamic
from torch import nn
from typer.testing import CliRunner

import vkfuse
from vkfuse.cli import app
from vkfuse.errors import CheckFailedError, InputError, VkfuseError
from vkfuse.options import BaselineChoice, Storage, VulkanOptions
from vkfuse.pte import read_pte
from vkfuse.pte.enums import VkDataType, VkStorageType
from vkfuse.pte.vulkan import VkTensor, vulkan_graphs
from vkfuse.quiet import quiet
from vkfuse.report.checks import GatesFailedError
from vkfuse.report.model import Report
from vkfuse.rewrite import plan as planning
from vkfuse.tables import nibbles
from vkfuse.tables.proven import Proof

NONE = BaselineChoice.NONE
OLD = b"what was there before"


@cache
def _tied():
    """A tied model with a wide layer, quantized to 4 bits."""
    torch.manual_seed(0)
    module = LanguageModel(128)
    module.head.weight = module.table.weight
    with quiet():
        quantize(quantize(module, nn.Embedding), nn.Linear)
        return export(module, indices(2, 7))


def _storages(path):
    graphs = vulkan_graphs(read_pte(path)).values()
    return {v.storage for graph in graphs for v in graph.values if isinstance(v, VkTensor) and not v.constant}


def _dtypes(path):
    graphs = vulkan_graphs(read_pte(path)).values()
    return {v.dtype for graph in graphs for v in graph.values if isinstance(v, VkTensor) and not v.constant}


@pytest.mark.parametrize(
    ("options", "bound"),
    [
        (VulkanOptions(), 1e-5),
        (VulkanOptions(storage=Storage.BUFFER), 1e-5),
        (VulkanOptions(fp16=True), 1e-2),
    ],
    ids=["default", "buffer", "fp16"],
)
def test_vulkan_options(options, bound, tmp_path):
    """Each choice of the backend gives a loadable file that is right, half precision within half's error."""
    path = tmp_path / "model.pte"
    report = vkfuse.optimize(_tied(), path, baseline=NONE, vulkan=options).report
    assert report.loadable.ok
    assert report.verify.ok
    assert {table.rung for table in report.tables} == {"q4"}
    assert worst_error(_tied(), path) <= bound
    textures = _storages(path) & {VkStorageType.TEXTURE_3D, VkStorageType.TEXTURE_2D}
    assert (not textures) == (options.storage is Storage.BUFFER)
    assert (VkDataType.FLOAT16 in _dtypes(path)) == options.fp16


@pytest.mark.parametrize("small", [False, True], ids=["16384 texels", "2048 texels"])
def test_small_textures(small, tmp_path):
    """3000 rows are taller than 2048 texels: a buffer holds them where textures are to be small."""
    path = tmp_path / "model.pte"
    exported = lookup(3000)()
    vulkan = VulkanOptions(small_textures=small)
    report = vkfuse.optimize(exported, path, baseline=NONE, verify=False, vulkan=vulkan).report
    assert report.loadable.ok
    assert (VkStorageType.BUFFER in _storages(path)) == small
    assert worst_error(exported, path) == 0


class _Masked(nn.Module):
    """The shares that a mask leaves of scores, and of none where it leaves nothing."""

    def forward(self, scores: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
        mask = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)
        return torch.softmax(scores + mask[:, None], -1)


def test_rows_that_a_mask_empties_in_half_precision(tmp_path):
    """The lowest float32 is no minus infinity in half: a row that it masks everywhere stays uniform, verified too."""
    path, scores = tmp_path / "model.pte", torch.randn(2, 4, 8)
    exported = export(_Masked(), scores, torch.ones(2, 8).bool())
    report = vkfuse.optimize(exported, path, baseline=NONE, vulkan=VulkanOptions(fp16=True)).report
    assert report.verify.ok
    assert "mask-fills-raised" in {repair.code for repair in report.repairs}
    masks = [torch.zeros(2, 8).bool(), torch.tensor([[0] * 8, [0, 1] * 4]).bool()]
    assert worst_error(exported, path, [(scores, mask) for mask in masks]) < 1e-2


def test_8da4w_with_more_rows_than_columns(tmp_path):
    """Wrong on the device up to 1.4, so the rung below is taken there; from 1.5 on, and for fewer rows, it is fused."""
    fused = "et_vk.linear_dq8ca_q4gsw.default"
    for rows, runtime, wanted in ((64, "1.4", True), (65, "1.4", False), (65, "1.5", True)):
        exported = export(quantize_dynamic(nn.Sequential(nn.Linear(64, 64))), torch.randn(rows, 64))
        report = vkfuse.optimize(exported, tmp_path / "model.pte", baseline=NONE, runtime=runtime).report
        assert (fused in report.delegation.vulkan) == wanted, (rows, runtime)
        assert report.loadable.ok
        assert report.verify.ok
        assert report.tables[0].rung == "q4"


class _Sorts(nn.Module):
    def forward(self, x):
        return torch.argsort(x, dim=-1, descending=True, stable=True), x.roll(1, -1)


@pytest.mark.parametrize("shape", [(2,), (3, 2)])
def test_an_example_of_which_a_part_is_one(shape, tmp_path):
    """What repairs take off a dimension may leave one of the example's, and any number of others: the bound stays."""
    path = tmp_path / "model.pte"
    dynamic = ({len(shape) - 1: torch.export.Dim("n", min=1, max=8)},)
    exported = export(_Sorts(), torch.randn(shape), dynamic=dynamic)
    report = vkfuse.optimize(exported, path, baseline=NONE).report
    assert report.verify.ok
    (method,) = read_pte(path).methods
    assert method.input_values[0].sizes == (*shape[:-1], 8)


@pytest.mark.parametrize(("columns", "group", "scales"), [(256, None, 2), (192, 96, 4), (128, None, 1)])
def test_8da4w_of_long_groups(columns, group, scales, tmp_path):
    """Groups that a device sums in several turns are split, with equal scales; ExecuTorch's own file is found wrong."""
    path, source = tmp_path / "model.pte", tmp_path / "model.pt2"
    module = quantize_dynamic(nn.Sequential(nn.Linear(columns, 8)), group=group)
    torch.export.save(export(module, torch.randn(5, columns)), source)
    arguments = ["optimize", str(source), "-o", str(path), "--baseline", "stock", "--format", "json"]
    done = subprocess.run([sys.executable, "-m", "vkfuse", *arguments], capture_output=True, check=True)
    report = json.loads(done.stdout)
    (table,) = report["tables"]
    split = scales != (1 if group is None else columns // group)
    assert (table["rung"], table["how"]) == ("q4", ["groups-split"] if split else [])
    assert report["verify"]["ok"]
    assert report["baseline"]["loadable"] is not split
    ((_, graph),) = vulkan_graphs(read_pte(path)).items()
    dims = {value.dims for value in graph.values if isinstance(value, VkTensor)}
    assert (scales, 8) in dims


def test_runtime_without_the_fused_lookup(tmp_path):
    """For a runtime older than the operator the table goes to the next rung, by a refusal of its own, and still loads."""
    path = tmp_path / "model.pte"
    exported = lookup(2, 7)()
    report = vkfuse.optimize(exported, path, baseline=NONE, runtime="1.2").report
    (table,) = report.tables
    assert (table.rung, table.reason.partition(":")[0]) == ("gathered", "operator-not-in-runtime")
    assert report.runtime.startswith("1.2")
    assert report.loadable.ok
    assert worst_error(exported, path) == 0


@pytest.mark.parametrize(("scales", "of_lookup"), [("auto", 2), ("float32", 4)])
def test_scales_by_option(scales, of_lookup, tmp_path):
    """A lookup's scales that are halves take two bytes each unless four are asked for; the tied head's take four."""
    module = LanguageModel(rows=128)
    module.head.weight = module.table.weight
    quantize(quantize(module, nn.Embedding, scale_dtype=torch.float16), nn.Linear, scale_dtype=torch.float16)
    source, path, report = tmp_path / "model.pt2", tmp_path / "model.pte", tmp_path / "report.json"
    torch.export.save(export(module, indices(2, 7)), source)
    options = ["--baseline", "none", "--scales", scales, "--report", str(report)]
    ran = CliRunner().invoke(app, ["optimize", str(source), "-o", str(path), *options])
    assert ran.exit_code == 0, ran.output
    (table, _) = json.loads(report.read_text())["tables"]
    assert table["bytes_after"] == 128 * (32 + 2 * (of_lookup + 4))
    assert ("half-scales" in table["how"]) == (of_lookup == 2)
    assert table["proof"] == {"kind": "exact", "max_abs_error": 0.0}


@pytest.mark.parametrize(
    ("runtime", "rung", "size"),
    [("1.2", "gathered", 128 * (64 + 32 + 2 * 2 * 4)), ("1.3", "q4", 128 * (32 + 2 * 2 * 4))],
)
def test_tied_head_by_runtime(runtime, rung, size, tmp_path):
    """One pack and scales for each reader where the runtime looks up in it; without that, rows of bytes beside it."""
    report = vkfuse.optimize(_tied(), tmp_path / "m.pte", baseline=NONE, runtime=runtime, verify=False).report
    (table,) = (table for table in report.tables if table.consumers == ("gather", "matmul"))
    assert (table.rung, table.bytes_after, table.proof.kind) == (rung, size, "exact")


def test_public_entry_takes_a_path(program, tmp_path):
    """`vkfuse.optimize(path, output)` gives the report and the path, and tells its stages in order."""
    stages = []
    result = vkfuse.optimize(str(program), str(tmp_path / "model.pte"), baseline=NONE, progress=stages.append)
    assert result.output == tmp_path / "model.pte"
    assert isinstance(result.report, Report)
    assert result.report.input.bytes == program.stat().st_size
    assert stages == ["loading", "planning", "lowering", "reading back", "proving", "verifying", "reporting"]


def test_unknown_names_are_refused(tmp_path):
    """An option that does not exist, and a runtime that does not: an error and no file."""
    with pytest.raises(VkfuseError, match="base_line"):
        vkfuse.optimize(_tied(), tmp_path / "model.pte", base_line=NONE)
    with pytest.raises(InputError, match="newest"):
        vkfuse.optimize(_tied(), tmp_path / "model.pte", runtime="newest")
    assert list(tmp_path.iterdir()) == []


def test_gates_from_python(tmp_path):
    """Options by their words; a gate that fails raises with the report, and leaves the file what it was."""
    path = tmp_path / "model.pte"
    path.write_bytes(OLD)
    words = {
        "baseline": "none",
        "storage": "buffer",
        "max_memory": "1GiB",
        "require": ["loadable", "verified"],
    }
    with pytest.raises(GatesFailedError, match="max-size") as failed:
        vkfuse.optimize(lookup(2, 7)(), path, max_size="1KiB", **words)
    assert path.read_bytes() == OLD
    checks = {check.name: check.passed for check in failed.value.report.checks}
    assert checks == {"max-size": False, "require loadable": True, "require verified": True}
    result = vkfuse.optimize(lookup(2, 7)(), path, max_size="1MiB", **words)
    assert path.stat().st_size == result.report.output.bytes == result.report.checks[0].value


def _flip_last(values, **order):
    packed = nibbles_pack(values, **order)
    packed[-1, -1] ^= 16
    return packed


nibbles_pack = nibbles.pack


def test_wrong_bytes_are_never_published(monkeypatch, tmp_path):
    """One wrong nibble that the proof is made to overlook: the file's own run finds it, and the old output stays."""
    path = tmp_path / "model.pte"
    path.write_bytes(OLD)
    monkeypatch.setattr(nibbles, "pack", _flip_last)
    monkeypatch.setattr(planning, "prove", lambda *_: Proof(kind="exact", max_abs_error=0.0))
    with pytest.raises(CheckFailedError) as failed:
        vkfuse.optimize(lookup(2, 7)(), path, baseline=NONE)
    assert failed.value.exit_code == 1
    assert path.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [path]
