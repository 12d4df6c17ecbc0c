"""What a diff says beside sizes: operators that moved, other types and packing, loadability, small changes together."""

from dataclasses import replace

import pytest

from vkfuse.measure.memory import MethodMemory, memory
from vkfuse.pte import read_pte
from vkfuse.pte.enums import VkDataType, VkStorageType
from vkfuse.pte.vulkan import VkTensor, vulkan_graphs
from vkfuse.report.alike import condensed
from vkfuse.report.build import measure
from vkfuse.report.diff import diff_of
from vkfuse.report.model import CountChange, CpuOperator, Report, SizeChange
from vkfuse.report.sections import sections

MEASURED = {  # of a loaded file, by VMA's statistics of the 1.5.0 runtime on lavapipe: bytes and allocations
    "fused": (6464, 10),
    "inline": (20208, 8),
    "tied": (20736, 38),
}


@pytest.mark.parametrize("name", MEASURED)
def test_memory_is_what_the_runtime_allocates(files, name):
    """Constants, tensors and staging buffers, and a uniform of no more than 256 bytes an allocation."""
    pte = read_pte(files / f"{name}.pte")
    (taken,) = memory(pte, "1.5.0")
    border = [g.values[i] for g in vulkan_graphs(pte).values() for i in (*g.input_ids, *g.output_ids)]
    staging = sum(value.nbytes for value in border if isinstance(value, VkTensor))
    allocated, allocations = MEASURED[name]
    assert 0 <= allocated - taken.constants - taken.tensors - staging <= 256 * allocations


def test_a_tied_pack_is_on_the_device_as_often_as_the_runtime_packs_it(files):
    """A lookup's pack is kept for all its uses, a linear's is its own; both tables and scales, and a norm's weight."""
    assert memory(read_pte(files / "tied.pte"), "1.5.0") == (
        MethodMemory(method="forward", planned=2592, constants=2 * (2048 + 512) + 256, tensors=5280),
    )


def _measured(pte, **change):
    """A file as measured, its delegation changed."""
    measured = measure(pte)
    return replace(measured, delegation=replace(measured.delegation, **change))


def test_operators_that_moved(files):
    """An operator of one name that left Vulkan for the CPU moved; others appeared or vanished, or are called more often."""
    pte = read_pte(files / "tied.pte")
    base = _measured(pte, vulkan={"aten.add.Tensor": 3, "aten.mul.Tensor": 1, "aten.neg.default": 2}, cpu={})
    new = _measured(
        pte,
        vulkan={"aten.add.Tensor": 1, "aten.mul.Tensor": 4},
        cpu={"aten::add.Scalar_out": CpuOperator(count=2), "aten::exp.out": CpuOperator(count=1)},
    )
    assert {(c.operator, c.place): c.what for c in diff_of(new, base).operators} == {
        ("aten.add.Tensor", "vulkan"): "moved",
        ("aten::add.Scalar_out", "cpu"): "moved",
        ("aten.mul.Tensor", "vulkan"): "more",
        ("aten.neg.default", "vulkan"): "vanished",
        ("aten::exp.out", "cpu"): "appeared",
    }


@pytest.mark.parametrize(
    ("change", "before", "after"),
    [
        ({"dtype": VkDataType.FLOAT16}, "float32 texture_3d width", "float16 texture_3d width"),
        ({"storage": VkStorageType.BUFFER}, "float32 texture_3d width", "float32 buffer"),
    ],
)
def test_other_types_and_packing(files, monkeypatch, change, before, after):
    """An operator that is called as often and computes in another type, or into another storage, is a row."""
    base, new = read_pte(files / "fused.pte"), read_pte(files / "fused.pte")
    graphs = {
        place: replace(
            graph,
            values=tuple(
                replace(v, **change) if isinstance(v, VkTensor) and not v.constant else v
                for v in graph.values
            ),
        )
        for place, graph in vulkan_graphs(new).items()
    }
    monkeypatch.setattr(
        "vkfuse.pte.delegates.vulkan_graphs", lambda pte: graphs if pte is new else vulkan_graphs(pte)
    )
    (row,) = diff_of(measure(new), measure(base)).layouts
    assert (row.operator, row.place, row.calls) == ("et_vk.embedding_q4gsw.default", "vulkan", 1)
    assert row.before.startswith(before)
    assert row.after.startswith(after)


def test_loadability_that_changed(files):
    """From a file that loads to one that does not: what is missing, and at how many places; and back."""
    unfused, fused = (measure(read_pte(files / f"{name}.pte"), "1.5.1") for name in ("unfused", "fused"))
    worse, better = diff_of(unfused, fused).findings, diff_of(fused, unfused).findings
    assert [(f.effect, f.name, f.code, f.before, f.after) for f in worse if f.effect == "fails"] == [
        ("fails", "aten.embedding.default", "not-a-constant", 0, 1),
        ("fails", "torchao.dequantize_affine.default", "not-registered", 0, 1),
    ]
    assert [(f.code, f.after, f.before) for f in better] == [(f.code, f.before, f.after) for f in worse]
    assert diff_of(fused, fused).findings == ()


def test_small_changes_are_one_row(full):
    """Changes below a thousandth of the file are summed up; one alone, and any above, stand for themselves."""
    large = SizeChange(
        label="large", kind="constant", before=0, after=4_000_000, delta=4_000_000, percent=None
    )
    small = tuple(
        SizeChange(label=f"s{n}", kind="constant", before=100 * n, after=None, delta=-100 * n, percent=-100.0)
        for n in range(1, 5)
    )
    diff = replace(full.diff, ledger=(large, *small))

    def shown(diff):
        report = condensed(Report(runtime="1.5", diff=diff))
        return next(s for s in sections(report) if s.title == "Changed bytes").rows

    assert [row[0] for row in shown(diff)] == ["large", "[4 others]"]
    assert shown(diff)[1][1:4] == (1000, 0, -1000)
    assert [row[0] for row in shown(replace(diff, ledger=(large, small[0])))] == ["large", "s1"]


def test_moves_keep_their_counts(files):
    """Counts of a row are those of its place."""
    pte = read_pte(files / "tied.pte")
    base = _measured(pte, vulkan={"aten.add.Tensor": 1}, cpu={})
    new = _measured(pte, vulkan={}, cpu={"aten::add.out": CpuOperator(count=1)})
    assert diff_of(new, base).operators == (
        CountChange(operator="aten::add.out", place="cpu", before=0, after=1, what="moved"),
        CountChange(operator="aten.add.Tensor", place="vulkan", before=1, after=0, what="moved"),
    )
