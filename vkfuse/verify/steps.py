"""What an executor tells those who watch: each operator with what it read and wrote."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final

import torch

from vkfuse.pte.enums import VkStorageType
from vkfuse.pte.place import Place

Scalar = int | float | bool | str | None
Argument = torch.Tensor | Scalar | list[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One executed operator: where, values in and out.

    `reads` and `writes` name the places of the values, so that it is known who made what; `storages` are the
    GPU resources of a delegate's tensors, outputs last, None for what is no tensor.
    """

    name: str
    where: Place
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    reads: tuple[Hashable, ...] = ()
    writes: tuple[Hashable, ...] = ()
    storages: tuple[VkStorageType | None, ...] = ()


COPY: Final = "copy"  # the name of a step that moves values into a delegate, or out of it
Observer = Callable[[Step], None]


def ignore(step: Step) -> None:
    """Watch nothing."""
    del step
