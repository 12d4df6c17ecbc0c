"""Grids of tables that reach their reader as floats: had back from the numbers, exactly or not at all."""

import torch

from vkfuse.program.tensors import scalar_type
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.prove import original_rows
from vkfuse.rewrite.sites import Site
from vkfuse.tables.found import LEAST_VALUES, NoGrid, find_grid
from vkfuse.tables.grid import Grid

_MATRIX = 2  # dimensions


def grid_had_back(site: Site, constants: Constants) -> Grid | NoGrid | None:
    """The grid of the float matrix that a site reads, or how close it came; None where it reads none that is worth it."""
    operand = site.operand
    value = None if operand is None else operand.meta["val"]
    if value is None or value.ndim < _MATRIX or not value.is_floating_point() or value.numel() < LEAST_VALUES:
        return None
    key = (operand, site.transposed)
    if key not in constants.derived:
        rows, *rest = value.shape[::-1] if site.transposed else value.shape
        constants.derived[key] = find_grid(
            original_rows(site, constants), rows, torch.Size(rest).numel(), scalar_type(value.dtype)
        )
    found = constants.derived[key]
    return found if isinstance(found, (Grid, NoGrid)) else None
