"""Sizes in whole parts: texels, groups, aligned bytes."""


def ceil_div(size: int, part: int) -> int:
    """How many parts `size` takes, the last one perhaps not full."""
    return -(-size // part)


def round_up(size: int, part: int) -> int:
    """`size` with its last part filled."""
    return ceil_div(size, part) * part
