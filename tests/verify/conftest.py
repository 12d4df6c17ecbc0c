"""Files lowered once for all tests of a session; lowering takes a second or two each."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import stock
from torch import nn
from torch.export import ExportedProgram

from vkfuse.program.load import from_exported
from vkfuse.quiet import quiet


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """A stock file with its program, the module and the inputs it was exported with."""

    data: bytes
    exported: ExportedProgram
    module: nn.Module
    inputs: tuple[Any, ...]


@pytest.fixture(scope="session")
def lowered() -> Callable[[str], Lowered]:
    """A stock file by the name of its case."""
    made: dict[str, Lowered] = {}
    cases = {case.name: case for case in stock.CASES}

    def build(name: str) -> Lowered:
        if name not in made:
            logging.disable(logging.WARNING)
            with quiet(verbose=False):
                module, inputs, exported = stock.program_of(cases[name])
                data = stock.stock_file(exported)
            logging.disable(logging.NOTSET)
            made[name] = Lowered(
                data=data, exported=from_exported(exported).exported, module=module, inputs=inputs
            )
        return made[name]

    return build
