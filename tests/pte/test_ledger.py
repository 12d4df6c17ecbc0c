"""Every byte of a file has a label, and the labels are the right ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vkfuse.measure.claims import Claim, divide
from vkfuse.measure.ledger import LedgerEntry, ledger
from vkfuse.pte import read_pte
from vkfuse.pte.values import Extent

NAMES = ("fused", "folded", "external", "inline", "rows", "unfused", "tied", "sorted", "mixed")


def table(path):
    """Return the ledger as lines, without the sizes, which change with the writer."""
    return [f"{entry.kind}: {entry.label} x{entry.count}" for entry in ledger(read_pte(path))]


@pytest.mark.parametrize("name", NAMES)
def test_labels_sum_to_the_size(files, name):
    """The law of the ledger, on every built file; nothing in a file that stock wrote is unreferenced."""
    entries = ledger(read_pte(files / f"{name}.pte"))
    assert sum(entry.bytes for entry in entries) == (files / f"{name}.pte").stat().st_size
    assert not [entry for entry in entries if entry.kind in {"unreferenced", "named-data"}]
    assert len({(entry.kind, entry.label) for entry in entries}) == len(entries)


def test_whole_ledger_of_a_fused_lookup(files):
    """Weights by operator, argument, type and shape; the flatbuffers and padding make up the rest."""
    entries = ledger(read_pte(files / "fused.pte"))
    assert [entry for entry in entries if entry.kind == "constant"] == [
        LedgerEntry(
            label=f"vulkan:forward/0 {what}",
            kind="constant",
            bytes=size,
            group=f"vulkan:forward {what}",
            what=what,
        )
        for what, size in (
            ("embedding_q4gsw weight uint8[64,32]", 2048),
            ("embedding_q4gsw scales float32[64,2]", 512),
        )
    ]
    others = {(entry.kind, entry.label) for entry in entries if entry.kind != "constant"}
    assert others == {
        ("header", "header"),
        ("program", "program"),
        ("delegate", "vulkan:forward/0 header"),
        ("delegate", "vulkan:forward/0 graph"),
        ("padding", "padding"),
    }
    assert next(entry.bytes for entry in entries if entry.kind == "header") == 40


def test_whole_ledger_of_a_mixed_program(files):
    """Constants, initial states and scalars of a CPU program; equal labels are one entry with a count."""
    assert table(files / "mixed.pte") == [
        "program: program x1",
        "padding: padding x4",
        "constant: forward constant float32[3,4] x1",
        "header: header x1",
        "constant: forward constant int64[2] x1",
        "constant: forward initial state state float32[4] x1",
        "constant: forward constant float32[] x3",
    ]


def test_inline_blobs_and_prepacked_constants_are_found(files):
    """A blob inside the program flatbuffer has its own label; a constant is named after its GPU copy."""
    assert "delegate: vulkan:forward/0 graph x1" in table(files / "inline.pte")
    lines = table(files / "unfused.pte")
    assert "constant: vulkan:forward/0 dequantize_affine weight int8[64,64] x1" in lines


def test_shared_constants_are_counted_once(files):
    """Two tensors over the same bytes share one label that names both."""
    data = bytearray((files / "tied.pte").read_bytes())
    pte = read_pte(files / "tied.pte")
    weights = [entry for entry in pte.named if entry.data_at.size == 2048]
    assert len(weights) == 2
    first, second = (entry.key.encode() for entry in weights)
    start = pte.methods[0].delegates[1].processed_at
    at = data.index(second, start.offset, start.end)
    data[at : at + len(second)] = first
    path = files / "shared.pte"
    path.write_bytes(data)
    lines = table(path)
    shared = "embedding_q4gsw weight uint8[64,32] + vulkan:forward/1 linear_q4gsw weight uint8[64,32]"
    assert f"constant: shared: vulkan:forward/0 {shared} x1" in lines
    assert f"named-data: named data {second.decode()} x1" in lines
    path.unlink()


extents = st.builds(Extent, st.integers(0, 40), st.integers(0, 30))


@given(st.lists(extents, max_size=12))
def test_divide_agrees_with_painting_byte_by_byte(claimed):
    """Each claimed byte has one piece: that of the smallest claim, of equal ones the first."""
    claims = [Claim(extent, "constant", str(order)) for order, extent in enumerate(claimed)]
    painted = {}
    for claim in sorted(enumerate(claims), key=lambda item: (-item[1].at.size, -item[0])):
        painted.update(dict.fromkeys(range(claim[1].at.offset, claim[1].at.end), claim[1].label))
    pieces = list(divide(claims))
    ours = {byte: piece.claim.label for piece in pieces for byte in range(piece.at.offset, piece.at.end)}
    assert ours == painted
    assert sum(piece.at.size for piece in pieces) == len(painted)
