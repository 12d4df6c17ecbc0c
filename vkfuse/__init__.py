"""vkfuse: torchao-quantized PyTorch programs into small, loadable, proven ExecuTorch Vulkan files.

``vkfuse.optimize`` is imported on first use, and torch when there is a program to lower.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vkfuse.entry import optimize
    from vkfuse.pipeline import Partitioner
    from vkfuse.report.result import Result

__version__ = "0.1.0"
__all__ = ["Partitioner", "Result", "__version__", "optimize"]


_HOMES = {"optimize": "vkfuse.entry", "Result": "vkfuse.entry", "Partitioner": "vkfuse.pipeline"}


def __getattr__(name: str) -> Any:
    """Load ``optimize``, ``Result`` and ``Partitioner`` when they are first asked for."""
    if name in _HOMES:
        from importlib import import_module  # noqa: PLC0415 - `import vkfuse` loads nothing

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
