"""Exact rewrites around what the runtime lacks; each keeps every value and reports what it did."""

from collections.abc import Callable
from dataclasses import dataclass

from torch.export import ExportedProgram

from vkfuse.rewrite.repairs.affine import decompose_affine
from vkfuse.rewrite.repairs.fold import fold_constants
from vkfuse.rewrite.repairs.notes import Repair

RepairRule = Callable[[ExportedProgram], tuple[ExportedProgram, tuple[Repair, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """A program after all repairs, and what they did."""

    exported: ExportedProgram
    repairs: tuple[Repair, ...]


REPAIRS: tuple[RepairRule, ...] = (fold_constants, decompose_affine)


def repair(exported: ExportedProgram) -> Repaired:
    """Apply each repair in order."""
    done: list[Repair] = []
    for rule in REPAIRS:
        exported, repairs = rule(exported)
        done.extend(repairs)
    return Repaired(exported=exported, repairs=tuple(done))
