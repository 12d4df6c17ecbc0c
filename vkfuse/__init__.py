"""vkfuse: torchao-quantized PyTorch programs into small, loadable, proven ExecuTorch Vulkan files.

What is named here is imported on first use: ``import vkfuse`` loads nothing, and a report no torch.
"""

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vkfuse.commands.report import report_files
    from vkfuse.commands.verify import verify as verify_files
    from vkfuse.entry import optimize
    from vkfuse.errors import CheckFailedError, InputError, LoweringError, OutputError, VkfuseError
    from vkfuse.gates import Gates
    from vkfuse.options import Options, VulkanOptions
    from vkfuse.pipeline import Partitioner
    from vkfuse.pte import read_pte
    from vkfuse.report.checks import GatesFailedError
    from vkfuse.report.format import Format
    from vkfuse.report.model import Result
    from vkfuse.report.render import rendered
    from vkfuse.verify.session import run_file
    from vkfuse.verify.verify import VerifyOptions

__version__ = "0.1.0"
__all__ = [
    "CheckFailedError",
    "Format",
    "Gates",
    "GatesFailedError",
    "InputError",
    "LoweringError",
    "Options",
    "OutputError",
    "Partitioner",
    "Result",
    "VerifyOptions",
    "VkfuseError",
    "VulkanOptions",
    "__version__",
    "optimize",
    "read_pte",
    "rendered",
    "report_files",
    "run_file",
    "verify_files",
]
_ERRORS: Final = ("CheckFailedError", "InputError", "LoweringError", "OutputError", "VkfuseError")
_HOMES: Final = {
    **dict.fromkeys(_ERRORS, "errors"),
    "Format": "report.format",
    "Gates": "gates",
    "GatesFailedError": "report.checks",
    "Options": "options",
    "Partitioner": "pipeline",
    "Result": "report.model",
    "VerifyOptions": "verify.verify",
    "VulkanOptions": "options",
    "optimize": "entry",
    "read_pte": "pte",
    "rendered": "report.render",
    "report_files": "commands.report",
    "run_file": "verify.session",
    "verify_files": "commands.verify",
}
_OTHERWISE: Final = {"verify_files": "verify"}  # as it is called at home: vkfuse.verify is a package


def __getattr__(name: str) -> Any:
    """Load what is named here when it is first asked for."""
    if name in _HOMES:
        from importlib import import_module  # noqa: PLC0415 - `import vkfuse` loads nothing

        return getattr(import_module(f"vkfuse.{_HOMES[name]}"), _OTHERWISE.get(name, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
