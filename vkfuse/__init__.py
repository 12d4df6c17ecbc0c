"""vkfuse: torchao-quantized PyTorch programs into small, loadable, proven ExecuTorch Vulkan files.

``vkfuse.optimize`` is imported on first use, and torch when there is a program to lower.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vkfuse.entry import optimize
    from vkfuse.report.result import Result

__version__ = "0.1.0"
__all__ = ["Result", "__version__", "optimize"]


def __getattr__(name: str) -> Any:
    """Load ``optimize`` and ``Result`` when they are first asked for."""
    if name in {"Result", "optimize"}:
        from importlib import import_module  # noqa: PLC0415 - `import vkfuse` loads nothing

        return getattr(import_module("vkfuse.entry"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
