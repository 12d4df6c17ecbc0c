"""From programs to a file and its report: the public `optimize` and `inspect`."""

from vkfuse.pipeline.stages import Source, inspect, optimize
from vkfuse.report.result import Result

__all__ = ["Result", "Source", "inspect", "optimize"]
