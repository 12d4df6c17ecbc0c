"""A program, and the file that it was lowered to before there was a fused lookup, come to the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_program_and_folded_file_agree(program, tmp_path):
    """The .pt2 and its kept baseline are optimized to the same tables on the same rungs, bytes within 1%."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    folded, reports = tmp_path / "folded.pte", []
    for source, more in ((program, ["--keep-baseline", folded]), (folded, [])):
        report = tmp_path / f"{source.stem}.json"
        command = [
            sys.executable,
            "-m",
            "vkfuse",
            "optimize",
            source,
            "-o",
            tmp_path / "m.pte",
            "-q",
            "--report",
            report,
        ]
        subprocess.run([*map(str, [*command, *more])], check=True, env=environment)
        reports.append(json.loads(report.read_text()))
    tables = [
        [
            (row["shape"], row["rung"], row["bits"], row["group_size"], row["proof"]["kind"])
            for row in of["tables"]
        ]
        for of in reports
    ]
    assert tables[0] == tables[1] == [([100, 64], "q4", 4, 32, "exact")]
    sizes = [of["output"]["bytes"] for of in reports]
    assert abs(sizes[1] - sizes[0]) < max(sizes) * 0.01 + 1024  # names of tables, and gaps between segments
    assert reports[1]["delegation"]["cpu"] == reports[0]["delegation"]["cpu"] == {}
