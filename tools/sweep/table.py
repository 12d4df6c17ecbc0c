"""Counts of a sweep's verdicts, and each disagreement with its spec.

    python tools/sweep/table.py verdicts.jsonl... [--flow stock] [--specs]

Disagreements are grouped by what was seen: numbers are taken out of messages and logs.
"""

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

RIGHT: Final = ("right", "refused")  # where vkfuse and the runtime agree
_NOT_COUNTED: Final = ("no program", "not exported")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verdicts", nargs="+", type=Path)
    parser.add_argument("--flow", choices=("vkfuse", "stock"), default="vkfuse")
    parser.add_argument(
        "--specs", action="store_true", help="each disagreement's spec, not only the smallest of a group"
    )
    options = parser.parse_args()
    rows = [json.loads(line) for path in options.verdicts for line in path.open()]
    specs = {row["id"]: row["spec"] for row in rows if "spec" in row}
    counted = [row for row in rows if row["flow"] == options.flow]
    skipped = Counter(row["verdict"] for row in rows if row["verdict"] in _NOT_COUNTED)
    print(f"{len(counted)} programs; not counted: {dict(skipped)}\n")
    print(markdown(counted, specs))
    for line in disagreements(
        [row for row in counted if row["verdict"] not in RIGHT], specs, every=options.specs
    ):
        print(line)


def markdown(rows: Iterable[Mapping[str, Any]], specs: Mapping[int, Mapping[str, Any]]) -> str:
    """Verdicts by setting."""
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        table[row["verdict"]][specs.get(row["id"], {}).get("setting", "")] += 1
    settings = list(dict.fromkeys(setting for counts in table.values() for setting in counts))
    head = ["verdict", *settings, "all"]
    lines = [head, ["---"] * len(head)]
    for verdict, counts in sorted(table.items(), key=lambda item: -sum(item[1].values())):
        lines.append([verdict, *(str(counts[setting]) for setting in settings), str(sum(counts.values()))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def disagreements(
    rows: Sequence[Mapping[str, Any]], specs: Mapping[int, Mapping[str, Any]], *, every: bool
) -> Iterable[str]:
    """Groups of disagreements, the largest first, each with its smallest spec."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["verdict"], seen(row)].append(row)
    for (verdict, what), group in sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1]))):
        yield f"\n{verdict}: {len(group)} x {what}"
        yield f"  steps: {dict(Counter(_steps(specs.get(row['id'], {})) for row in group).most_common(8))}"
        ordered = sorted(group, key=lambda row: len(json.dumps(specs.get(row["id"], {}))))
        for row in ordered if every else ordered[:1]:
            yield f"  {json.dumps(specs.get(row['id'], {'id': row['id']}))}\n    {detail(row)}"


def seen(row: Mapping[str, Any]) -> str:
    """What was seen, without numbers."""
    says = row.get("says", {})
    refusal = says.get("refused") or (
        f"lint {says['lint']}" if says.get("lint") else f"verify {says.get('verify')}: {says.get('message')}"
    )
    text = (
        row.get("fault")
        or row.get("why")
        or (refusal if not row.get("certified") else row.get("log") or row.get("wrong", ""))
    )
    return re.sub(r"0x[0-9a-f]+|-?\d[\d.e+-]*", "#", re.sub(r"E \d\d:\d\d:[\d.]+ ", "", text))[:160]


def detail(row: Mapping[str, Any]) -> str:
    """What was seen, whole."""
    parts = (row.get("fault"), row.get("why"), row.get("wrong"), row.get("log"), json.dumps(row.get("says")))
    return " / ".join(part for part in parts if part)


def _steps(spec: Mapping[str, Any]) -> str:
    return "+".join(step["kind"] for step in spec.get("steps", ()))


if __name__ == "__main__":
    main()
