"""Operators that the shaders compute as torch defines them: the file's arguments bound to a schema."""

from typing import Any, Final

import torch
from torch._ops import OpOverload

from vkfuse.verify.bounds import bind, check_result
from vkfuse.verify.vulkan.call import Call, Kernel, Result

_INDEX_ARGUMENTS: Final = {"aten.gather.default": (2,)}  # which torch takes as int64 only


def kernel_of(name: str) -> Kernel | None:
    """Return the kernel of an operator by its definition, ATen's or that which ExecuTorch publishes; None without one."""
    operator: Any = torch.ops
    for part in name.split("."):
        operator = getattr(operator, part, None)
    if not isinstance(operator, OpOverload):
        return None
    wide = _INDEX_ARGUMENTS.get(name, ())

    def run(call: Call) -> Result:
        # A type, layout, device or memory format is not stored in a Vulkan graph: the output's own says it.
        values = [value.long() if at in wide else value for at, value in enumerate(call.args)]
        positional, keywords = bind(operator, values)
        check_result(operator, positional, keywords)
        result: Result = operator(*positional, **keywords)
        return tuple(result) if isinstance(result, list) else result

    return run
