"""Sizes and times as people write them, and names as they are told."""

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
