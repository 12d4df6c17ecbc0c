"""The tables of benchmarks/shader/README.md, from the JSON that `vkfuse shader bench --report FILE.json` writes."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vkfuse.glsl.variants import ROWS_PER_BLOCK, VARIANTS, Variant, WeightLayout, variant_named

COLUMNS = 2048
TOKENS = (1, 64, 512, 4096, 8192)
HEAD = (
    *("output", "weight"),
    *(f"{tokens} tokens" if tokens > 1 else "1 token" for tokens in TOKENS),
    *("1 token alone", "of copy, 4096 tokens"),
)

TEXTURE_HEAD = ("output", "tokens", "faster", "of copy, blocks of 8 rows", "of copy, lines of 4 blocks")
ROWS_PER_LINE = 4 * ROWS_PER_BLOCK  # of the table, in a line of 128 bytes of its texture

Rows = Mapping[tuple[Variant, int], Mapping[str, Any]]


def table(report: Mapping[str, Any]) -> str:
    """Speed-up over the runtime's mapping at 2048 columns, and the share of the copy's bandwidth, as markdown."""
    rows = rows_of(report)
    variants = [variant for variant in VARIANTS if (variant, TOKENS[0]) in rows]
    variants.sort(key=lambda variant: (variant.storage, list(WeightLayout).index(variant.weight)))
    return markdown(HEAD, (tuple(cells(rows, variant)) for variant in variants))


def texture_table(report: Mapping[str, Any]) -> str:
    """Lookups in linear-texture2d weights at 2048 columns: share of copy by blocks asked for, and by lines fetched.

    For a report of random rows, without --neighbours.
    """
    lines = []
    for (variant, tokens), row in rows_of(report).items():
        if variant.weight is WeightLayout.LINEAR_TEXTURE2D and tokens >= 512:
            share = row["share_of_copy"]
            asked, fetched = (
                distinct_rows(report, tokens, unit) * COLUMNS // 2 for unit in (ROWS_PER_BLOCK, ROWS_PER_LINE)
            )
            touched = row["bytes_read"] + row["bytes_written"]
            by_line = share * (touched - asked + fetched) / touched
            output = f"{variant.storage} {variant.dtype}"
            lines.append((output, f"{tokens}", f"{row['speedup']:.2f}x", f"{share:.0%}", f"{by_line:.0%}"))
    return markdown(TEXTURE_HEAD, lines)


def distinct_rows(report: Mapping[str, Any], tokens: int, unit: int) -> float:
    """Rows of the units, of `unit` rows each, in which at least one of `tokens` random rows is expected."""
    units = report["options"]["vocab"] / unit
    return float(units * (1 - (1 - 1 / units) ** tokens) * unit)


def rows_of(report: Mapping[str, Any]) -> Rows:
    """The report's rows at 2048 columns."""
    return {
        (variant_named(row["variant"]), row["tokens"]): row
        for row in report["rows"]
        if row["embed_dim"] == COLUMNS
    }


def markdown(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ("---",) * len(head), *rows))


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
    log = json.loads(path.read_text(encoding="utf-8"))
    print(table(log), texture_table(log), sep="\n\n")
