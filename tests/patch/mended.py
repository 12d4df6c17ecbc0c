"""What became of files that ExecuTorch's own lowering gets wrong, from the record of tools/mends/record.py.

python tests/patch/mended.py        # the table of docs/patch.md
"""

import json
import sys
from collections import Counter
from pathlib import Path

RECORD = json.loads((Path(__file__).parent / "mended.json").read_text("utf-8"))
_BEFORE = {"wrong": "loads, wrong", "not-loadable": "does not load", "right": "right"}


def table():
    """The record as Markdown: files of one fault and outcome in a row, then their number."""
    lines = [
        "| what the runtime has against it | files | before | mended by | after |",
        "|---|--:|---|---|---|",
    ]
    for (faults, before, mends, after), files in Counter(map(_kind, RECORD)).items():
        lines.append(f"| {faults} | {files} | {before} | {mends} | {after} |")
    mended = sum(row["after"] == "right" for row in RECORD)
    lines += ["", f"{mended} of {len(RECORD)} files are right after."]
    return "\n".join(lines)


def _kind(row):
    after = ", ".join(f"refused: `{code}`" for code in row["left"][:1]) or row["after"]
    return _codes(row["faults"]), _BEFORE[row["before"]], _codes(row["mends"]) or "-", after


def _codes(codes):
    return ", ".join(f"`{code}`" for code in codes)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
