"""Bytes that no writer made: an answer or a FormatError, in bounded time and memory."""

import contextlib
from functools import cache
from pathlib import Path

import flatbuffers
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vkfuse.errors import FormatError
from vkfuse.lint import lint
from vkfuse.measure.ledger import ledger
from vkfuse.pte import parse_pte, read_pte, read_vulkan_graph
from vkfuse.pte.delegates import placement
from vkfuse.pte.ptd import parse_ptd

NAMES = ("mixed", "tied", "inline", "external", "sorted")
SETTINGS = settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
WORDS = (b"\xff" * 8, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x00" * 4, b"\x01\x00\x00\x00", b"\x00\x00\x00\x80")


@cache
def content(path: Path) -> bytes:
    """Return a file's bytes, read once."""
    return path.read_bytes()


def examine(data):
    """Do everything that a report does with a file; the ledger of whatever is read sums to its size."""
    pte = parse_pte(data)
    placement(pte)
    lint(pte)
    assert sum(entry.bytes for entry in ledger(pte)) == len(data)


@st.composite
def mutations(draw):
    """[(position as a fraction, bytes to write there)] and where to cut, as a fraction."""
    patches = st.tuples(st.floats(0, 1), st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(WORDS)))
    cut = draw(st.one_of(st.just(1.0), st.floats(0, 1)))
    return draw(st.lists(patches, min_size=1, max_size=6)), cut


def mutated(data, mutation):
    """Apply a mutation; positions favour the first 4 KiB, where the tables are."""
    patches, cut = mutation
    changed = bytearray(data)
    for fraction, patch in patches:
        at = int(fraction * (min(len(changed), 4096) - 1))
        changed[at : at + len(patch)] = patch
    return bytes(changed[: int(cut * len(changed))])


@SETTINGS
@given(name=st.sampled_from(NAMES), mutation=mutations())
def test_mutated_files_are_read_or_refused(files, name, mutation):
    """Overwritten and truncated real files raise nothing but FormatError."""
    with contextlib.suppress(FormatError):
        examine(mutated(content(files / f"{name}.pte"), mutation))


@SETTINGS
@given(mutation=mutations())
def test_mutated_blobs_and_ptds_are_read_or_refused(files, mutation):
    """The same for a bare Vulkan blob and a .ptd."""
    with contextlib.suppress(FormatError):
        read_vulkan_graph(mutated(content(files / "inline_constants.vk"), mutation), {})
    with contextlib.suppress(FormatError):
        parse_ptd(mutated(content(files / "external.ptd"), mutation))


@SETTINGS
@given(
    data=st.binary(max_size=200),
    head=st.sampled_from([b"", b"\x10\0\0\0ET12", b"\x10\0\0\0ET12eh00\x20\0\0\0"]),
)
def test_random_bytes_are_refused_or_read(data, head):
    """Bytes with the right magic and nothing else raise nothing but FormatError."""
    with contextlib.suppress(FormatError):
        examine(head + data)


@pytest.mark.parametrize("name", ["external", "mixed"])
def test_every_truncation_is_refused_or_read(files, name):
    """Cut at each byte: whatever is still read has a ledger that sums; the first half never reads."""
    data = content(files / f"{name}.pte")
    readable = 0
    for size in range(0, len(data), 3):
        try:
            examine(data[:size])
        except FormatError:
            continue
        readable = readable or size
    assert readable == 0 or readable > len(data) // 2


def nested(width):
    """Return a program with one method and one list value, each referred to `width` times by one vector."""
    builder = flatbuffers.Builder()
    builder.StartVector(8, 64, 8)
    for _ in range(64):
        builder.PrependInt64(0)
    items = builder.EndVector()

    def table(slots):
        builder.StartObject(1 + max(slots))
        for slot, (kind, target) in slots.items():
            if kind == "reference":
                builder.PrependUOffsetTRelativeSlot(slot, target, 0)
            else:
                builder.PrependUint8Slot(slot, target, 0)
        return builder.EndObject()

    def repeated(target):
        builder.StartVector(4, width, 4)
        for _ in range(width):
            builder.PrependUOffsetTRelative(target)
        return builder.EndVector()

    ints = table({0: ("reference", items)})
    value = table({0: ("tag", 7), 1: ("reference", ints)})  # IntList
    plan = table({2: ("reference", repeated(value))})
    program = table({1: ("reference", repeated(plan))})
    builder.Finish(program, b"ET12")
    return bytes(builder.Output())


def test_shared_references_cannot_blow_up():
    """A megabyte of references to the same tables asks for 10^10 values; the budget refuses it early."""
    data = nested(width=100_000)
    assert len(data) < 1_000_000
    with pytest.raises(FormatError, match="more elements than a file of this size can hold"):
        parse_pte(data)
    with pytest.raises(FormatError, match="second method"):
        parse_pte(nested(width=2))


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (16, 2**64 - 1, "header.program_size"),
        (24, 2**64 - 1, "header.segment_data_size"),
        (32, 2**63, "header.segment_data_size"),
        (24, 2**40, "header.segment_data_size"),
    ],
)
def test_header_fields_beyond_the_file_are_refused(files, at, value, message):
    """Sizes and offsets of the header that overflow or leave the file are named."""
    data = bytearray(content(files / "fused.pte"))
    data[at : at + 8] = value.to_bytes(8, "little")
    with pytest.raises(FormatError) as failure:
        parse_pte(data)
    assert failure.value.field == message


def test_segments_may_overlap_but_not_leave_the_file(files):
    """A segment moved onto another reads, its bytes counted once; one moved past the end is refused."""
    data = bytearray(content(files / "fused.pte"))
    pte = parse_pte(data)
    last = pte.segments[-1]
    field = (last.offset - pte.header.segment_base).to_bytes(8, "little")
    at = 8 + data.index(last.size.to_bytes(8, "little") + field)
    data[at : at + 8] = (0).to_bytes(8, "little")
    examine(data)
    data[at : at + 8] = (2**64 - 8).to_bytes(8, "little")
    with pytest.raises(FormatError, match=r"segments\[\d\]"):
        parse_pte(data)


def test_named_data_that_is_missing_is_no_error(files, tmp_path):
    """A key that no table lists reads as absent, as for a blob whose data are external."""
    pte = read_pte(files / "fused.pte")
    graph = read_vulkan_graph(pte.methods[0].delegates[0].processed, {})
    assert [constant.data for constant in graph.constants] == [None, None]
    renamed = pte.data.tobytes().replace(pte.named[0].key.encode(), b"0" * len(pte.named[0].key), 1)
    (tmp_path / "renamed.pte").write_bytes(renamed)
    notes = lint(read_pte(tmp_path / "renamed.pte"))
    assert ("external-constants", "note") in {(note.code, note.effect) for note in notes}
