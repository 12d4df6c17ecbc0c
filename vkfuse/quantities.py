"""Sizes and times as people write them; sizes, changes, counts and names as they are told."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?(B|kB|[KMGT]B|[KMGT]iB)?", re.ASCII)
_TIME: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smh])?", re.ASCII)
_UNITS: Final[Mapping[str, int]] = {
    "B": 1,
    "kB": 1000,
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
}
_SECONDS: Final[Mapping[str, int]] = {"s": 1, "m": 60, "h": 3600}


def parse_size(text: str) -> int:
    """Bytes of `4GiB`, `1.5GB` or a plain number. ValueError."""
    found = _SIZE.fullmatch(text)
    size = int(float(found[1]) * _UNITS[found[2] or "B"]) if found else 0
    if size < 1:
        raise ValueError(f"{text!r} is no size: write 4GiB, 512MiB, 1.5GB or a number of bytes")
    return size


def parse_seconds(text: str) -> float:
    """Seconds of `90`, `90s`, `5m` or `1.5h`. ValueError."""
    found = _TIME.fullmatch(text)
    seconds = float(found[1]) * _SECONDS[found[2] or "s"] if found else 0.0
    if seconds <= 0:
        raise ValueError(f"{text!r} is no time: write 90 or 90s, 5m, 1.5h")
    return seconds


def some(names: Iterable[object], most: int = 3) -> str:
    """`a, b, c and 2 more`."""
    every = [*map(str, names)]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


_MIB = 1 << 20


def mebibytes(size: int | None) -> str:
    """`348.2 MiB`, `2.44 MiB`, `0.016 MiB`; `512 B` below 0.01 MiB; `-` for None."""
    if size is None:
        return "-"
    amount = size / _MIB
    if 0 < abs(amount) < 0.01:
        return f"{size:,} B"
    digits = 1 if abs(amount) >= 10 else 2 if abs(amount) >= 1 else 3
    return f"{amount:,.{digits}f} MiB"


def signed(size: int) -> str:
    """`+1.5 MiB`, `-12 B`, `0`."""
    if size == 0:
        return "0"
    return ("+" if size > 0 else "-") + mebibytes(abs(size))


def percent(value: float | None) -> str:
    """`-16.7%`; `new` for None."""
    return "new" if value is None else f"{value:+.1f}%"


def share(value: float) -> str:
    """`12.3%`: a part of 1."""
    return f"{100 * value:.1f}%"


def bits_per_weight(size: int, weights: int | None) -> float | None:
    """Bits of each of `weights` values that `size` bytes store, None of none, or of an unknown number."""
    return round(8 * size / weights, 4) if weights else None


def counted(count: int, noun: str) -> str:
    """`1 table`, `2 tables`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
