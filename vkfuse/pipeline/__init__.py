"""From programs to a file and its report: the public `optimize` and `inspect`."""

from vkfuse.pipeline.partitioner import Partitioner
from vkfuse.pipeline.stages import Source, inspect, optimize
from vkfuse.report.model import Result

__all__ = ["Partitioner", "Result", "Source", "inspect", "optimize"]
