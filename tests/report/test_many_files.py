"""Several files at once, external data, all runtimes, the summary of a job: through the command line."""

import csv
import io
import json
import os
import subprocess
import sys
from importlib.resources import files as data_files

import jsonschema
import pytest

SCHEMA = json.loads((data_files("vkfuse.data") / "report.schema.json").read_text())


def _report(*arguments, code=0, **environment):
    """Run `vkfuse report`, and give what it printed."""
    ran = subprocess.run(
        [sys.executable, "-m", "vkfuse", "report", "--no-config", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "80", **environment},
    )
    assert ran.returncode == code, ran.stderr
    return ran.stdout if code == 0 else ran.stdout + ran.stderr


def test_three_files_are_described_each(files, tmp_path):
    """A row a file in text, the report of each in JSON, rows of all in CSV, each at length in HTML and markdown."""
    paths = [files / f"{name}.pte" for name in ("fused", "unfused", "folded")]
    others = [tmp_path / f"report.{suffix}" for suffix in ("json", "csv", "html", "md")]
    text = _report(*paths, "--runtime", "1.5.1", *(f"--report={path}" for path in others))
    assert f"3 files in {files}/: Vulkan runtime of ExecuTorch 1.5.1".replace(" ", "") in "".join(
        text.split()
    )
    assert "unfused.pte" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "not-registered, not-a-constant" in " ".join(text.split())
    written = json.loads(others[0].read_text())
    assert written["schema"] == "vkfuse.reports/1"
    assert [report["output"]["path"] for report in written["reports"]] == [*map(str, paths)]
    for report in written["reports"]:
        jsonschema.validate(report, SCHEMA)
    rows = [*csv.DictReader(io.StringIO(others[1].read_text()))]
    for path in paths:
        assert sum(int(row["bytes"]) for row in rows if row["file"] == str(path)) == path.stat().st_size
    page = others[2].read_text()
    assert page.count("<details>") == 3
    lines = others[3].read_text().splitlines()
    assert lines[0].startswith("### 3 files, 0.0")
    assert lines[0].endswith("1 NOT loadable on 1.5.1")


def test_two_files_are_a_diff_unless_each_is_asked_for(files):
    """`NEW BASE` compares, `--each` describes both, and a file may stand for itself."""
    pair = (files / "fused.pte", files / "folded.pte")
    assert json.loads(_report(*pair, "--format=json"))["diff"]["total"]["before"] == pair[1].stat().st_size
    both = json.loads(_report(*pair, "--each", "--format=json"))
    assert [report["diff"] for report in both["reports"]] == [None, None]
    one = json.loads(_report(pair[0], "--each", "--format=json"))
    assert len(one["reports"]) == 1


def test_checks_of_each_file(files):
    """A check holds for each file, and what failed is listed by file; what needs a file before is refused."""
    paths = [files / f"{name}.pte" for name in ("fused", "unfused", "folded")]
    told = _report(*paths, "--require=loadable", "--max-size=10KB", "--runtime=1.5.1", code=1)
    assert "vkfuse: error: 2 of 6 checks failed" in told
    assert f"{paths[1]}: require loadable" in told
    assert f"{paths[2]}: max-size" in told
    assert "Failed checks" in told
    assert "--max-growth cannot be answered" in _report(*paths, "--max-growth=1%", code=2)


def test_an_unreadable_file_among_many(files, tmp_path):
    """One file that is none is named, and why, with code 2; the others are described all the same."""
    broken, page = tmp_path / "broken.pte", tmp_path / "all.json"
    broken.write_bytes((files / "fused.pte").read_bytes()[:300])
    good = [files / "fused.pte", files / "tied.pte"]
    told = _report(good[0], broken, good[1], f"--report={page}", COLUMNS="200", code=2)
    assert "FAILED: 2 files" in _report(good[0], broken, good[1], "--format=markdown", code=2)
    assert f"vkfuse: error: 1 of 3 files could not be read\n  {broken}: " in told
    assert "Not read" in told
    written = json.loads(page.read_text())
    assert [report["output"]["path"] for report in written["reports"]] == [*map(str, good)]
    assert [(row["path"], bool(row["hint"])) for row in written["unread"]] == [(str(broken), True)]
    assert written["unread"][0]["error"].startswith(f"{broken}: ")
    none = _report(broken, broken, broken, code=2)
    assert "3 of 3 files could not be read" in none
    assert "Traceback" not in none


def test_external_data(files):
    """With its .ptd a file's constants are known, and the data stand beside the file; without, a note asks for them."""
    path, data = files / "external.pte", files / "external.ptd"
    alone, both = (json.loads(_report(path, *more, "--format=json")) for more in ((), (f"--ptd={data}",)))
    assert [f["code"] for f in alone["loadable"]["findings"]] == ["external-constants"]
    assert both["loadable"]["findings"] == []
    assert (alone["external"], both["external"]) == (
        [],
        [{"path": str(data), "bytes": data.stat().st_size, "blobs": 1}],
    )
    assert str(data) in _report(path, f"--ptd={data}", COLUMNS="300")
    assert "base-ptd" not in _report(path, files / "folded.pte", f"--base-ptd={data}")


def test_all_runtimes(files):
    """Which runtimes load a file, and what is missing on each: the fused lookup is there from 1.3 on."""
    rows = json.loads(_report(files / "fused.pte", "--all-runtimes", "--format=json"))["runtimes"]
    assert [row["version"] for row in rows] == ["1.0.1", "1.1.0", "1.2.0", "1.3.1", "1.4.1", "1.5.0", "1.5.1"]
    fused = "et_vk.embedding_q4gsw.default"
    assert [(row["ok"], row["missing"], row["codes"]) for row in rows] == [
        *3 * [(False, [fused], ["not-registered"])],
        *4 * [(True, [], [])],
    ]
    text = _report(files / "fused.pte", "--all-runtimes")
    assert "  1.2.0    no     et_vk.embedding_q4gsw.default  not-registered\n" in text
    several = _report(
        files / "fused.pte", files / "tied.pte", "--each", "--all-runtimes", "--format=markdown"
    )
    assert "| File | 1.0.1 | 1.1.0 | 1.2.0 | 1.3.1 | 1.4.1 | 1.5.0 | 1.5.1 |" in several
    assert "| fused.pte | no | no | no | yes | yes | yes | yes |" in several


@pytest.mark.parametrize("fmt", ["text", "json"])
def test_summary_of_a_job(files, tmp_path, fmt):
    """The markdown goes behind what the job's page has already, whatever is printed; without a page it is an error."""
    page = tmp_path / "summary.md"
    page.write_text("before\n")
    arguments = (files / "fused.pte", "--github-summary", "--format", fmt)
    _report(*arguments, GITHUB_STEP_SUMMARY=str(page))
    assert page.read_text() == f"before\n{_report(files / 'fused.pte', '--format=markdown')}\n"
    assert "GITHUB_STEP_SUMMARY is not set" in _report(*arguments, code=2, GITHUB_STEP_SUMMARY="")
