"""From programs to a file and its report: the public `optimize` and `inspect`."""

from vkfuse.pipeline.stages import Result, Source, inspect, optimize

__all__ = ["Result", "Source", "inspect", "optimize"]
