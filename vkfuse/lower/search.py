"""Which of many things make an attempt fail, by bisection."""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def culprits(candidates: Sequence[T], works_without: Callable[[frozenset[T]], bool]) -> frozenset[T] | None:
    """The candidates without which the attempt works; None where it fails without all of them.

    `works_without` tries with a set left out; leaving out more must not make it fail. Each culprit costs about
    log2(len(candidates)) attempts, and one to see whether it is the last.
    """
    if not works_without(frozenset(candidates)):
        return None
    found: frozenset[T] = frozenset()
    while not works_without(found):
        rest = [c for c in candidates if c not in found]
        found |= {rest[_first_that_works(rest, found, works_without) - 1]}
    return found


def _first_that_works(
    rest: Sequence[T], found: frozenset[T], works_without: Callable[[frozenset[T]], bool]
) -> int:
    """The least n for which it works without `found` and the first n of `rest`: it fails for 0, works for all."""
    fails, works = 0, len(rest)
    while works - fails > 1:
        middle = (fails + works) // 2
        if works_without(found.union(rest[:middle])):
            works = middle
        else:
            fails = middle
    return works
