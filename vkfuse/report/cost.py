"""Time and memory of a run and of its stages."""

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from vkfuse.report.model import Cost, StageCost

_UNIT: Final = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss: bytes there, kilobytes everywhere else


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """Clocks at one moment, in seconds, and the peak resident bytes up to it."""

    wall: float
    cpu: float
    peak: int


def _reading() -> _Reading:
    own, children = (resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu = sum(of.ru_utime + of.ru_stime for of in (own, children))
    return _Reading(wall=time.monotonic(), cpu=cpu, peak=own.ru_maxrss * _UNIT)


class Meter:
    """Started when made; a stage lasts from its announcement to the next one's."""

    def __init__(self) -> None:
        self._start = _reading()
        self._begun: list[tuple[str, _Reading]] = []

    def watching(self, progress: Callable[[str], None]) -> Callable[[str], None]:
        """Return `progress` with the stages that it is told of measured."""

        def told(stage: str) -> None:
            self._begun.append((stage, _reading()))
            progress(stage)

        return told

    def cost(self) -> Cost:
        """Seconds since the start, the process' peak resident bytes, and the same of each stage so far."""
        now = _reading()
        return Cost(
            seconds=round(now.wall - self._start.wall, 3),
            peak_rss_bytes=now.peak,
            stages=self._stages(now),
        )

    def _stages(self, now: _Reading) -> tuple[StageCost, ...]:
        """A row for each stage by its name, what it took several times added up."""
        rows: dict[str, StageCost] = {}
        for (name, start), (_, end) in pairwise((*self._begun, ("", now))):
            known = rows.get(name, StageCost(name=name, seconds=0.0, cpu_seconds=0.0, peak_rss_bytes=0))
            rows[name] = replace(
                known,
                seconds=round(known.seconds + end.wall - start.wall, 3),
                cpu_seconds=round(known.cpu_seconds + end.cpu - start.cpu, 3),
                peak_rss_bytes=end.peak,
            )
        return tuple(rows.values())
