"""`--cache`: new weights in a graph that an earlier run lowered give the file that a lowering would."""

import errno
import hashlib
import json
import os
import shutil

import pytest
import torch
from programs import BOTH, LanguageModel, export, indices, quantize, quantize_dynamic
from torch import nn

import vkfuse
from vkfuse.entries import Entries
from vkfuse.errors import OutputError, VkfuseError
from vkfuse.lower import partition
from vkfuse.lower.owned import StateOutsideError
from vkfuse.quiet import quiet

LOOKED = "looking in the cache"


class Scaled(LanguageModel):
    """A tied language model with a norm, whose weight is the same in every new model, and 0.5 in its graph."""

    def __init__(self, scale=0.5, norm=1.0, key=""):
        super().__init__(128)
        self.norm, self.scale, self.key = nn.LayerNorm(64), scale, key
        nn.init.constant_(self.norm.weight, norm)

    def forward(self, tokens):
        """[n, m] -> [n, m, rows], under a key where there is one."""
        rows = self.table(tokens)
        found = self.head(self.norm(torch.tanh(self.layer(rows)) * self.scale + rows))
        return {self.key: found} if self.key else found


def _scaled(seed, **changes):
    torch.manual_seed(seed)
    model = Scaled(**changes)
    model.head.weight = model.table.weight
    with quiet():
        quantize(quantize(model, nn.Embedding), nn.Linear)
        return export(model, indices(2, 7), dynamic=BOTH)


def _optimized(program, path, **options):
    """The bytes of a file, and what its report says of the cache."""
    stages = []
    report = vkfuse.optimize(program, path, baseline="none", progress=stages.append, **options).report
    (note,) = (note for note in report.notes if note.startswith("cache: ")) if "cache" in options else ("",)
    assert (LOOKED in stages) == ("cache" in options)
    assert ("lowering" in stages) == ("not lowered in this run" not in note)
    assert report.verify.ok
    assert {table.proof.kind for table in report.tables} == {"exact"}
    return path.read_bytes(), note


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A folder in which a run found nothing, and the bytes of its file."""
    folder = tmp_path_factory.mktemp("cache")
    made, note = _optimized(_scaled(0), folder / "first.pte", cache=folder / "entries")
    assert (
        note == "cache: lowered in this run, since no run before had this graph, these options and versions"
    )
    return folder / "entries", made


def test_new_weights_are_put_into_the_earlier_file(filled, tmp_path):
    """Byte for byte what a lowering of the new program writes; with the weights of before it is the earlier file."""
    entries, first = filled
    second, note = _optimized(_scaled(1), tmp_path / "second.pte", cache=entries)
    assert "was judged, proved and verified as any other" in note
    assert second == _optimized(_scaled(1), tmp_path / "lowered.pte")[0] != first
    assert _optimized(_scaled(0), tmp_path / "again.pte", cache=entries)[0] == first


@pytest.mark.parametrize(
    ("program", "options"),
    [
        (lambda: _scaled(1, scale=0.25), {}),
        (lambda: _scaled(1, key="logits"), {}),
        (lambda: _scaled(1), {"storage": "buffer"}),
    ],
    ids=["number", "key", "options"],
)
def test_another_graph_is_lowered(program, options, filled, tmp_path):
    """A number of the graph, a key of its results and an option of the delegate make another entry."""
    entries, _ = filled
    known = {*entries.iterdir()}
    _, note = _optimized(program(), tmp_path / "other.pte", cache=entries, **options)
    assert "no run before had this graph" in note
    assert {path.suffix for path in {*entries.iterdir()} - known} == {".json", ".pte"}


class Cached(nn.Module):
    """A layer whose results stay, one row a call."""

    def __init__(self, start):
        super().__init__()
        self.layer = nn.Linear(64, 64)
        self.register_buffer("cache", torch.full((16, 64), start))

    def forward(self, row, position):
        """[1, 64], [1] -> [16, 64]."""
        self.cache.index_copy_(0, position, self.layer(row))
        return self.cache + 1


def _cached(seed, start=0.0):
    torch.manual_seed(seed)
    with quiet():
        return export(quantize_dynamic(Cached(start)), torch.randn(1, 64), torch.tensor([3]))


@pytest.mark.parametrize("in_place", [True, False])
def test_state(in_place, tmp_path, monkeypatch):
    """New weights around a cache are put in, written in place or not; the report says where it is. New first values not."""

    def refuse(program):
        if any("update_cache" in str(node.target) for node in program.graph.nodes):
            raise StateOutsideError("")

    if not in_place:
        monkeypatch.setattr(partition, "require_delegated", refuse)
    entries, reports = tmp_path / "entries", []
    for name, program, lowered in (
        ("first", _cached(0), True),
        ("second", _cached(1), False),
        ("started", _cached(1, 0.5), True),
    ):
        stages, file = [], tmp_path / f"{name}.pte"
        options = {"baseline": "none", "cache": entries}
        reports.append(vkfuse.optimize(program, file, progress=stages.append, **options).report)
        assert ("lowering" in stages) == lowered, name
        assert file.read_bytes() == _optimized(program, tmp_path / "lowered.pte")[0]
    assert {report.notes[0] for report in reports} == {
        "forward keeps 1 buffer (4,096 bytes) on the GPU: cache"
    }


def test_what_stood_for_several_weights_is_lowered(tmp_path):
    """Two biases that were equal, and are not any more, cannot be told apart in the earlier file."""
    entries = tmp_path / "entries"
    for seed, bias in ((0, 0.0), (1, 0.5)):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Embedding(100, 64), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))
        nn.init.zeros_(model[1].bias)
        nn.init.constant_(model[3].bias, bias)
        with quiet():
            program = export(quantize(model, nn.Embedding), indices(2, 7))
        _, note = _optimized(program, tmp_path / "made.pte", cache=entries)
    assert "stood for several weights that differ now" in note


@pytest.mark.parametrize("suffix", ["json", "pte"])
@pytest.mark.parametrize(
    "harm", [lambda of: of[:-9], lambda of: of[:99] + b"\x7f" + of[100:]], ids=["cut", "bent"]
)
def test_a_damaged_entry_is_a_miss(suffix, harm, filled, tmp_path):
    """It is said, the file is right, and the entry is mended."""
    entries = tmp_path / "entries"
    entries.mkdir()
    for path in filled[0].iterdir():
        of = path.read_bytes()
        (entries / path.name).write_bytes(harm(of) if path.suffix == f".{suffix}" else of)
    made, note = _optimized(_scaled(0), tmp_path / "made.pte", cache=entries)
    assert "damaged" in note
    assert made == filled[1]
    assert "not lowered in this run" in _optimized(_scaled(0), tmp_path / "made.pte", cache=entries)[1]


def _another_file(of, folder):
    program = export(nn.Linear(8, 8), torch.randn(2, 8))
    vkfuse.optimize(program, folder / "other.pte", baseline="none", verify=False)
    made = (folder / "other.pte").read_bytes()
    of["sha256"] = hashlib.sha256(made).hexdigest()
    (folder / "entries" / f"{of['sha256']}.pte").write_bytes(made)


_PLACE = {"buffer": "cache", "nbytes": 1}
HOSTILE = {
    "another file": _another_file,
    "a path": lambda of, _: of.update(sha256="../../etc/passwd"),
    "no state": lambda of, _: of.pop("state"),
    "no place": lambda of, _: of["state"]["forward"].append({**_PLACE, "outside": "nowhere"}),
    "no code": lambda of, _: of["reasons"]["forward"].update(x={"code": "no-code", "detail": ""}),
    "other methods": lambda of, _: of["contents"].update(prefill={}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_entry_is_a_miss(what, filled, tmp_path):
    """An entry whose hash is right and whose content is not: there is a lowering, and no error."""
    entries = tmp_path / "entries"
    shutil.copytree(filled[0], entries)
    for path in entries.glob("*.json"):
        of = json.loads(path.read_bytes().partition(b"\n")[2])
        HOSTILE[what](of, tmp_path)
        text = json.dumps(of).encode()
        path.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
    made, note = _optimized(_scaled(0), tmp_path / "made.pte", cache=entries)
    assert "lowered in this run, since" in note
    assert made == filled[1]


EDITS = {"frame": 99, "table": -99, "cut": None}


def _edit(path, place):
    """Change a file in place: a byte, or its length."""
    of = path.read_bytes()
    with path.open("r+b") as stream:
        if place is None:
            stream.truncate(len(of) - 9)
        else:
            stream.seek(place % len(of))
            stream.write(bytes([of[place] ^ 1]))


def test_an_output_edited_in_place_is_no_entry_any_more(tmp_path):
    """An entry's file is the output under a second name: once that is edited it is refused by its hash, and mended.

    A later run's output is a file of its own, and a run that replaces an output leaves the entry what it was.
    """
    source, output, later = (tmp_path / name for name in ("model.pt2", "model.pte", "later.pte"))
    torch.export.save(_scaled(0), source)
    options = {"cache": tmp_path / "entries", "baseline": "none"}
    vkfuse.optimize(source, output, **options)
    made = output.read_bytes()
    for place in EDITS.values():
        (kept,) = options["cache"].glob("*.pte")
        assert kept.samefile(output)
        vkfuse.optimize(source, later, **options)
        _edit(later, place)
        assert kept.read_bytes() == output.read_bytes() == made != later.read_bytes()
        _edit(output, place)
        again = vkfuse.optimize(source, later, **options).report
        assert not any("neither loaded nor lowered" in note for note in again.notes)
        assert again.verify.ok
        assert later.read_bytes() == kept.read_bytes() == made != output.read_bytes()
        output, later = later, output
    output.unlink()
    vkfuse.optimize(source, later, **options)
    assert later.read_bytes() == kept.read_bytes() == made


def _no_link(*_):
    raise OSError(errno.EXDEV, "another device")


@pytest.mark.parametrize(("mode", "link"), [(0o664, os.link), (0o602, os.link), (0o644, _no_link)])
def test_a_file_that_gets_no_second_name_is_copied(mode, link, tmp_path, monkeypatch):
    """One that others may write, or on a file system without hard links: its own content, and nothing is left over."""
    output, folder = tmp_path / "model.pte", tmp_path / "entries"
    output.write_bytes(b"content")
    output.chmod(mode)
    folder.mkdir()
    monkeypatch.setattr(os, "link", link)
    Entries(folder).keep("key", {}, output, hashlib.sha256(b"content").hexdigest())
    (kept,) = folder.glob("*.pte")
    assert kept.read_bytes() == b"content"
    assert kept.stat().st_ino != output.stat().st_ino
    assert {path.suffix for path in folder.iterdir()} == {".pte", ".json"}


def test_where_there_is_no_cache(filled, tmp_path):
    """A folder that is a file is told before any lowering; a .pte is not lowered."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="file"):
        _optimized(_scaled(0), tmp_path / "made.pte", cache=tmp_path / "file")
    (tmp_path / "made.pte").write_bytes(filled[1])
    with pytest.raises(VkfuseError, match=r"a \.pte is not lowered"):
        vkfuse.optimize(tmp_path / "made.pte", tmp_path / "again.pte", cache=tmp_path / "entries")


def test_a_folder_that_cannot_be_written(filled, tmp_path):
    """What it holds is of use all the same; what is lowered is written, and the report says that it was not kept."""
    entries = tmp_path / "entries"
    shutil.copytree(filled[0], entries)
    entries.chmod(0o555)
    assert "not lowered in this run" in _optimized(_scaled(0), tmp_path / "made.pte", cache=entries)[1]
    made, note = _optimized(_scaled(0, scale=0.125), tmp_path / "other.pte", cache=entries)
    assert f", and not kept: cannot write {entries}" in note
    assert made == _optimized(_scaled(0, scale=0.125), tmp_path / "lowered.pte")[0]
    assert {path.name for path in entries.iterdir()} == {path.name for path in filled[0].iterdir()}
