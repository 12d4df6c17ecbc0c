"""How sizes, changes and counts are written."""

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
