"""Verdicts of the real runtime as data for the tests: a few programs of each kind seen.

    python tools/sweep/record.py OLD.jsonl NEW.jsonl [KEPT.json] > tests/runtime/sweep_verdicts.json

`stock`: what the runtime did with stock's file (right, wrong, or what failed: load, run), of programs that vkfuse does not
take for right otherwise. `vkfuse`: of programs that OLD has not right, what the runtime does with NEW's file. The smallest
specs of each kind are taken, beside all that KEPT has.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from table import seen

_EACH: Final = 2  # programs of a kind
Row = Mapping[str, Any]


def main(old: str, new: str, kept: str = "") -> None:
    """Print the programs and verdicts."""
    before, after = _rows(old), _rows(new)
    specs = {row["id"]: row["spec"] for row in (*before, *after) if "spec" in row}
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for row in _smallest((row for row in after if row["flow"] == "stock" and _agrees(row)), specs):
        found[row["id"]]["stock"] = row["runtime"]
    known = {row["id"] for row in before if _right(row)}
    for row in _smallest((row for row in after if _right(row) and row["id"] not in known), specs):
        found[row["id"]]["vkfuse"] = row["runtime"]
    programs = {number: {**verdicts, "spec": specs[number]} for number, verdicts in found.items()}
    if kept:
        programs |= {row["spec"]["id"]: row for row in json.loads(Path(kept).read_text("utf-8"))}
    print("[\n" + ",\n".join(json.dumps(program) for _, program in sorted(programs.items())) + "\n]")


def _rows(path: str) -> list[Row]:
    with Path(path).open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def _right(row: Row) -> bool:
    return bool(row["flow"] == "vkfuse" and row["verdict"] == "right")


def _agrees(row: Row) -> bool:
    return "runtime" in row and bool(row["certified"]) == (row["runtime"] == "right")


def _smallest(rows: Iterable[Row], specs: Mapping[int, Row]) -> Iterator[Row]:
    """Up to `_EACH` rows of each kind: of the last step where all is right, else of what was seen."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        last = specs[row["id"]]["steps"][-1]["kind"]
        groups[f"{row.get('runtime')} {last if row['verdict'] == 'right' else seen(row)[:60]}"].append(row)
    for kind, group in groups.items():
        ordered = sorted(group, key=lambda row: len(json.dumps(specs[row["id"]])))
        yield from ordered[: 1 if kind.startswith("right") else _EACH]


if __name__ == "__main__":
    main(*sys.argv[1:])
