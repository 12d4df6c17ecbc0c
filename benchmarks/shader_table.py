"""The table of benchmarks/shader/README.md, from the JSON that `vkfuse shader bench --report FILE.json` writes."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vkfuse.glsl.variants import VARIANTS, Variant, WeightLayout, variant_named

COLUMNS = 2048
TOKENS = (1, 64, 512, 4096, 8192)
HEAD = (
    *("output", "weight"),
    *(f"{tokens} tokens" if tokens > 1 else "1 token" for tokens in TOKENS),
    *("1 token alone", "of copy, 4096 tokens"),
)

Rows = Mapping[tuple[Variant, int], Mapping[str, Any]]


def table(report: Mapping[str, Any]) -> str:
    """Speed-up over the runtime's mapping at 2048 columns, and the share of the copy's bandwidth, as markdown."""
    rows = {
        (variant_named(row["variant"]), row["tokens"]): row
        for row in report["rows"]
        if row["embed_dim"] == COLUMNS
    }
    variants = [variant for variant in VARIANTS if (variant, TOKENS[0]) in rows]
    variants.sort(key=lambda variant: (variant.storage, list(WeightLayout).index(variant.weight)))
    lines = [HEAD, ("---",) * len(HEAD), *(tuple(cells(rows, variant)) for variant in variants)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells(rows: Rows, variant: Variant) -> Iterator[str]:
    """One line of the table."""
    yield f"{variant.storage} {variant.dtype}"
    yield variant.weight
    for tokens in TOKENS:
        yield f"{rows[variant, tokens]['speedup']:.2f}x"
    yield f"{rows[variant, 1]['speedup_alone']:.2f}x"
    yield f"{rows[variant, 4096]['share_of_copy']:.0%}"


if __name__ == "__main__":
    default = Path(__file__).parent / "shader" / "h100.json"
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    print(table(json.loads(path.read_text(encoding="utf-8"))))
