"""Exact rewrites around what the runtime lacks; each keeps every value and reports what it did."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from torch.export import ExportedProgram

from vkfuse.program.guards import unguarded_convolutions
from vkfuse.rewrite.repairs.affine import decompose_affine
from vkfuse.rewrite.repairs.aliases import aliases_as_themselves
from vkfuse.rewrite.repairs.arithmetic import (
    complete_layer_norms,
    concatenations_of_one_type,
    group_norms_in_four_dimensions,
    layer_norms_in_rows,
    scalars_as_tensors,
    write_out_rms_norm,
)
from vkfuse.rewrite.repairs.attention import attention_in_four_dimensions, write_out_attention
from vkfuse.rewrite.repairs.bags import bags_as_lookups
from vkfuse.rewrite.repairs.batch_norms import batch_norms_as_arithmetic
from vkfuse.rewrite.repairs.branches import hoist_branch_tables
from vkfuse.rewrite.repairs.caches import cache_writes_as_choices
from vkfuse.rewrite.repairs.conditions import conditions_in_full_rank
from vkfuse.rewrite.repairs.convolutions import convolutions_as_shaders_take_them, transposed_groups_as_zeros
from vkfuse.rewrite.repairs.expansions import expansions_as_broadcasts
from vkfuse.rewrite.repairs.fills import raise_mask_fills, raise_mask_fills_in_half
from vkfuse.rewrite.repairs.fold import fold_constants
from vkfuse.rewrite.repairs.in_place import cache_writes_in_place
from vkfuse.rewrite.repairs.interleavings import interleavings_in_four_dimensions
from vkfuse.rewrite.repairs.llm_operators import llm_operators_written_out
from vkfuse.rewrite.repairs.matmuls import widen_integer_matmuls, widen_long_half_matmuls
from vkfuse.rewrite.repairs.notes import Repair
from vkfuse.rewrite.repairs.once import computed_once
from vkfuse.rewrite.repairs.orders import constants_in_order, copies_in_order, inputs_in_order
from vkfuse.rewrite.repairs.pads import circular_pads_as_concatenation
from vkfuse.rewrite.repairs.permutations import permutations_in_one, permutations_without_ones
from vkfuse.rewrite.repairs.pools import pools_as_images
from vkfuse.rewrite.repairs.positions import positions_as_tensors, unread_numbers_dropped
from vkfuse.rewrite.repairs.reductions import reductions_keep_dimensions
from vkfuse.rewrite.repairs.renorm import renormalize_whole_tables
from vkfuse.rewrite.repairs.repeats import repeats_as_concatenation, repeats_as_rows
from vkfuse.rewrite.repairs.softmaxes import softmaxes_in_rows
from vkfuse.rewrite.repairs.splits import splits_as_slices
from vkfuse.rewrite.repairs.squeezes import squeezes_as_views
from vkfuse.rewrite.repairs.stacks import stacks_as_slices
from vkfuse.rewrite.repairs.states import copies_as_sources, equal_state_kept_once, unread_state_dropped

RepairRule = Callable[[ExportedProgram], tuple[ExportedProgram, tuple[Repair, ...]]]

# Before the survey: they bring tables to where it can see them. The order within each tuple is the order applied.
BEFORE_SURVEY: tuple[RepairRule, ...] = (
    hoist_branch_tables,
    renormalize_whole_tables,
    bags_as_lookups,
)

# After the tables: inputs and constants first, so that masks are values when attention is written out; decompositions
# before the repairs that look at what they leave.
AFTER_TABLES: tuple[RepairRule, ...] = (
    inputs_in_order,
    constants_in_order,
    copies_in_order,
    llm_operators_written_out,
    positions_as_tensors,
    unread_numbers_dropped,
    fold_constants,
    aliases_as_themselves,
    copies_as_sources,
    unread_state_dropped,
    equal_state_kept_once,
    computed_once,
    raise_mask_fills,
    cache_writes_in_place,
    cache_writes_as_choices,
    decompose_affine,
    widen_integer_matmuls,
    permutations_without_ones,
    stacks_as_slices,
    interleavings_in_four_dimensions,
    attention_in_four_dimensions,
    write_out_attention,
    repeats_as_rows,
    repeats_as_concatenation,
    widen_long_half_matmuls,
    permutations_in_one,
    expansions_as_broadcasts,
    write_out_rms_norm,
    scalars_as_tensors,
    complete_layer_norms,
    concatenations_of_one_type,
    layer_norms_in_rows,
    group_norms_in_four_dimensions,
    batch_norms_as_arithmetic,
    circular_pads_as_concatenation,
    convolutions_as_shaders_take_them,
    transposed_groups_as_zeros,
    pools_as_images,
    conditions_in_full_rank,
    reductions_keep_dimensions,
    softmaxes_in_rows,
    squeezes_as_views,
    splits_as_slices,
)


# What a program keeps for itself alone may be left out; another method may read what this one writes.
_OF_OWN_STATE: tuple[RepairRule, ...] = (unread_state_dropped, equal_state_kept_once, cache_writes_in_place)


class State(StrEnum):
    """Whose the state of a program is: its own and a delegate's, its own, or that of several methods."""

    IN_PLACE = "in-place"
    OWN = "own"
    SHARED = "shared"


_LEFT_OUT: Mapping[State, tuple[RepairRule, ...]] = {
    State.IN_PLACE: (),
    State.OWN: (cache_writes_in_place,),
    State.SHARED: _OF_OWN_STATE,
}


def after_tables(*, half: bool, state: State) -> tuple[RepairRule, ...]:
    """The repairs after the tables for the precision that the file computes in, and for what its state allows."""
    in_half: dict[RepairRule, RepairRule] = {raise_mask_fills: raise_mask_fills_in_half} if half else {}
    return tuple(in_half.get(rule, rule) for rule in AFTER_TABLES if rule not in _LEFT_OUT[state])


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """A program after repairs, and what they did."""

    exported: ExportedProgram
    repairs: tuple[Repair, ...]


def repair(exported: ExportedProgram, rules: Sequence[RepairRule]) -> Repaired:
    """Apply each rule in order."""
    done: list[Repair] = []
    with unguarded_convolutions():
        for rule in rules:
            exported, repairs = rule(exported)
            done.extend(repairs)
    return Repaired(exported=exported, repairs=tuple(done))
