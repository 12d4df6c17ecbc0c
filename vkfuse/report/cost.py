"""Time and memory of a run."""

import resource
import sys
import time

from vkfuse.report.model import Cost


class Meter:
    """Started when made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def cost(self) -> Cost:
        """Wall seconds since the start and the process' peak resident bytes."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        unit = 1 if sys.platform == "darwin" else 1024  # kilobytes everywhere else
        return Cost(seconds=round(time.monotonic() - self._start, 3), peak_rss_bytes=peak * unit)
