"""One call of a delegate's operator chain, as the operators see it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from vkfuse.pte.enums import VkStorageType
from vkfuse.pte.place import Place
from vkfuse.pte.vulkan import ValueList, VkTensor, VkValue
from vkfuse.runtime.codes import Code
from vkfuse.verify.errors import ExecutionError
from vkfuse.verify.steps import Argument
from vkfuse.verify.tensors import vulkan_dtype

Result = Argument | tuple[Argument, ...]
Kernel = Callable[["Call"], Result]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An operator with its arguments: `args` are values, `operands` what the file says of all, outputs too.

    The schema's arguments come first, in order, then one output: a tensor, a list of tensors or an integer.
    """

    name: str
    where: Place
    args: tuple[Any, ...]
    operands: tuple[VkValue, ...]
    values: tuple[VkValue, ...]
    storages: tuple[VkStorageType | None, ...]
    note: Callable[[Code], None]

    @property
    def outputs(self) -> tuple[VkValue, ...]:
        """What the file says of the outputs, a list of tensors unfolded."""
        last = self.operands[-1]
        return tuple(self.values[index] for index in last.ids) if isinstance(last, ValueList) else (last,)

    def tensor(self, position: int) -> torch.Tensor:
        """Return a tensor argument; ExecutionError where it is something else."""
        if position < len(self.args) and isinstance(self.args[position], torch.Tensor):
            return self.args[position]  # type: ignore[no-any-return]
        raise self.fails(f"argument {position} is no tensor")

    def optional_tensor(self, position: int) -> torch.Tensor | None:
        """Return a tensor argument, or None where the file has none."""
        return None if self.args[position] is None else self.tensor(position)

    def integer(self, position: int) -> int:
        """Return an integer argument."""
        value = self.args[position]
        if not isinstance(value, int):
            raise self.fails(f"argument {position} is no integer")
        return value

    def storage(self, position: int) -> VkStorageType:
        """Return the GPU resource of a tensor argument."""
        storage = self.storages[position]
        if storage is None:
            raise self.fails(f"argument {position} is no tensor")
        return storage

    def dtype(self, output: int = 0) -> torch.dtype:
        """Return the element type that the file gives an output."""
        spec = self.outputs[output]
        if not isinstance(spec, VkTensor):
            raise self.fails(f"output {output} is no tensor")
        return vulkan_dtype(spec.dtype, self.where)

    def fails(self, reason: str) -> ExecutionError:
        """Return the error of a call that cannot be computed."""
        return ExecutionError(self.name, self.where, reason)
