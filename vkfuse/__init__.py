"""vkfuse: torchao-quantized PyTorch programs into small, loadable, proven ExecuTorch Vulkan files.

``vkfuse.optimize`` is imported on first use, so that ``import vkfuse.report`` never loads torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vkfuse.pipeline import Result, optimize

__version__ = "0.1.0"
__all__ = ["Result", "__version__", "optimize"]


def __getattr__(name: str) -> Any:
    """Load the torch side (``optimize``, ``Result``) when it is first asked for."""
    if name in {"Result", "optimize"}:
        from importlib import import_module  # noqa: PLC0415 - torch must stay out of `import vkfuse`

        return getattr(import_module("vkfuse.pipeline"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
