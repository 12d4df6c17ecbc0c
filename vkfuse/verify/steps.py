"""What an executor tells those who watch: each operator with what it read and wrote."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Scalar = int | float | bool | str | None
Argument = torch.Tensor | Scalar | list[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One executed operator: where (`forward/0:3`: the fourth call of delegate 0), values in and out."""

    name: str
    where: str
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]


Observer = Callable[[Step], None]


def ignore(step: Step) -> None:
    """Watch nothing."""
    del step
