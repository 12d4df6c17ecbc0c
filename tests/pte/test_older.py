"""Files that ExecuTorch 1.0, 1.2 and 1.4 wrote (tests/pte/older): read, written again, and rewritten for their runtimes."""

import zipfile
from pathlib import Path

import pytest
from test_writer import meaning, of_segments, written

from vkfuse import optimize
from vkfuse.pte import parse_pte, read_pte

ARCHIVE = Path(__file__).parent / "older" / "files.zip"
VERSIONS = ("1.0.1", "1.2.0", "1.4.1")
FUSED, GATHERED = ("q4", "exact"), ("gathered", "exact")
# file: what becomes of its table for runtimes without a fused lookup (below 1.3), and for those with one
TABLES = {"joined": (GATHERED, FUSED), "packed": (GATHERED, FUSED), "unfused": (GATHERED, GATHERED)}


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """Folder of the files, a folder a version."""
    folder = tmp_path_factory.mktemp("older")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(folder)
    return folder


def test_written_again(older):
    """Every value is kept, and the segments are the same bytes at the same distances."""
    paths = sorted(older.glob("*/*.pte"))
    assert [path.relative_to(older).parts[0] for path in paths] == sorted(VERSIONS * 4)
    for path in paths:
        file = read_pte(path)
        again = parse_pte(written(file))
        assert meaning(again) == meaning(file), path
        assert of_segments(again.data) == of_segments(file.data), path


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", TABLES)
def test_rewritten(older, tmp_path, version, name):
    """The table at the best rung of the runtime, the values of a run as they were (as on the 1.5.0 runtime)."""
    source, made = older / version / f"{name}.pte", tmp_path / "m.pte"
    for runtime, wanted in ((version, TABLES[name][version >= "1.3"]), ("1.5.0", TABLES[name][1])):
        report = optimize(source, made, runtime=runtime).report
        (row,) = report.tables
        assert (row.rung, row.proof and row.proof.kind) == wanted
        assert report.loadable.ok
        assert report.output.bytes <= report.baseline.bytes or name == "packed"
        verify = pytest.importorskip("vkfuse.verify.files")
        options = verify.VerifyOptions(runtime=runtime)
        if name != "unfused":  # which no runtime loads
            assert verify.verify_against_file(read_pte(made), read_pte(source), options).status == "same"
