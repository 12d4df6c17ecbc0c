"""Exact rewrites around what the runtime lacks; each keeps every value and reports what it did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import torch
from torch.export import ExportedProgram

from vkfuse.program.guards import unguarded_convolutions
from vkfuse.rewrite.repairs.activations import (
    bounds_as_clamps,
    exponential_units_written_out,
    mish_written_out,
    reciprocals_as_quotients,
)
from vkfuse.rewrite.repairs.affine import (
    activations_as_floats,
    decompose_affine,
    tokens_by_other_points,
)
from vkfuse.rewrite.repairs.aliases import aliases_as_themselves, ands_with_true
from vkfuse.rewrite.repairs.arithmetic import (
    complete_group_norms,
    complete_layer_norms,
    concatenations_of_one_type,
    group_norms_in_four_dimensions,
    instance_norms_as_group_norms,
    layer_norms_in_rows,
    scalars_as_tensors,
    write_out_rms_norm,
    write_out_softplus,
)
from vkfuse.rewrite.repairs.assembled import assignments_as_concatenation, empties_as_zeros
from vkfuse.rewrite.repairs.attention import attention_in_four_dimensions, write_out_attention
from vkfuse.rewrite.repairs.bags import bags_as_lookups
from vkfuse.rewrite.repairs.batch_norms import batch_norms_as_arithmetic
from vkfuse.rewrite.repairs.branches import hoist_branch_tables
from vkfuse.rewrite.repairs.caches import cache_writes_as_choices, cache_writes_as_products
from vkfuse.rewrite.repairs.checked import indices_checked
from vkfuse.rewrite.repairs.complexes import complex_numbers_as_pairs
from vkfuse.rewrite.repairs.contract import Contract
from vkfuse.rewrite.repairs.convolutions import convolutions_as_shaders_take_them, transposed_groups_as_zeros
from vkfuse.rewrite.repairs.experts import experts_as_wide_linears
from vkfuse.rewrite.repairs.experts.groups import choices_as_arithmetic
from vkfuse.rewrite.repairs.fills import raise_mask_fills, raise_mask_fills_in_half
from vkfuse.rewrite.repairs.fold import fold_constants
from vkfuse.rewrite.repairs.images import (
    adaptive_pools_as_maxima,
    batches_as_one_image,
    means_of_whole_images,
    transposed_sequences,
    volumes_as_images,
    volumes_by_slices,
)
from vkfuse.rewrite.repairs.in_place import cache_writes_in_place
from vkfuse.rewrite.repairs.indices import indices_from_the_start, taken_by_gathering
from vkfuse.rewrite.repairs.interleavings import interleavings_in_four_dimensions
from vkfuse.rewrite.repairs.kernels import buckets_as_counts, remainders_with_sign, shifts_of_tensors
from vkfuse.rewrite.repairs.llm_operators import llm_operators_written_out
from vkfuse.rewrite.repairs.long_products import long_products_in_parts
from vkfuse.rewrite.repairs.matmuls import (
    computed_matrices_as_batches,
    integer_matmuls_as_linears,
    widen_integer_matmuls,
    widen_long_half_matmuls,
)
from vkfuse.rewrite.repairs.notes import Repair, RepairRule
from vkfuse.rewrite.repairs.once import computed_once
from vkfuse.rewrite.repairs.orders import constants_in_order, copies_in_order, inputs_in_order
from vkfuse.rewrite.repairs.outer_writes import writes_along_one_dimension
from vkfuse.rewrite.repairs.pads import pads_as_concatenation, rolls_as_concatenation
from vkfuse.rewrite.repairs.permutations import (
    permutations_in_one,
    permutations_of_blocks,
    permutations_without_ones,
)
from vkfuse.rewrite.repairs.positions import positions_as_tensors, unread_numbers_dropped
from vkfuse.rewrite.repairs.quantized_caches import quantized_caches_as_floats
from vkfuse.rewrite.repairs.quantized_rows import rows_quantized_in_floats
from vkfuse.rewrite.repairs.reductions import (
    extremes_alone,
    reductions_keep_dimensions,
    softmaxes_in_rows,
    widen_long_half_softmaxes,
)
from vkfuse.rewrite.repairs.renorm import renormalize_whole_tables
from vkfuse.rewrite.repairs.repeats import repeats_as_concatenation, repeats_as_rows
from vkfuse.rewrite.repairs.resized import (
    conditions_in_full_rank,
    expansions_as_broadcasts,
    pools_as_images,
    splits_as_slices,
    squeezes_as_views,
    unbinds_as_selections,
)
from vkfuse.rewrite.repairs.scattered import scattered_rows_looked_up
from vkfuse.rewrite.repairs.sorts import sorts_as_topk
from vkfuse.rewrite.repairs.spectra import spectra_as_convolutions
from vkfuse.rewrite.repairs.stacks import stacks_as_slices
from vkfuse.rewrite.repairs.states import copies_as_sources, equal_state_kept_once, unread_state_dropped

# Before the survey: they bring tables to where it can see them. The order within each tuple is the order applied.
BEFORE_SURVEY: tuple[RepairRule, ...] = (
    hoist_branch_tables,
    renormalize_whole_tables,
    integer_matmuls_as_linears,
    bags_as_lookups,
    choices_as_arithmetic,
    experts_as_wide_linears,
)


def before_survey(*, check_indices: bool) -> tuple[RepairRule, ...]:
    """The repairs before the survey; the check of indices, where it is asked for, sees all lookups that they make."""
    return (*BEFORE_SURVEY, indices_checked) if check_indices else BEFORE_SURVEY


# After the tables. CONTRACTS has what has to stand in front of what.
AFTER_TABLES: tuple[RepairRule, ...] = (
    inputs_in_order,
    constants_in_order,
    copies_in_order,
    complex_numbers_as_pairs,
    llm_operators_written_out,
    positions_as_tensors,
    unread_numbers_dropped,
    fold_constants,
    buckets_as_counts,
    remainders_with_sign,
    shifts_of_tensors,
    indices_from_the_start,
    taken_by_gathering,
    scattered_rows_looked_up,
    writes_along_one_dimension,
    sorts_as_topk,
    spectra_as_convolutions,
    exponential_units_written_out,
    mish_written_out,
    aliases_as_themselves,
    ands_with_true,
    copies_as_sources,
    assignments_as_concatenation,
    empties_as_zeros,
    unread_state_dropped,
    equal_state_kept_once,
    computed_once,
    raise_mask_fills,
    quantized_caches_as_floats,
    rows_quantized_in_floats,
    cache_writes_in_place,
    cache_writes_as_choices,
    cache_writes_as_products,
    decompose_affine,
    tokens_by_other_points,
    activations_as_floats,
    widen_integer_matmuls,
    permutations_without_ones,
    stacks_as_slices,
    interleavings_in_four_dimensions,
    permutations_of_blocks,
    attention_in_four_dimensions,
    write_out_attention,
    computed_matrices_as_batches,
    repeats_as_rows,
    repeats_as_concatenation,
    long_products_in_parts,
    widen_long_half_matmuls,
    widen_long_half_softmaxes,
    permutations_in_one,
    expansions_as_broadcasts,
    write_out_rms_norm,
    bounds_as_clamps,
    reciprocals_as_quotients,
    write_out_softplus,
    scalars_as_tensors,
    complete_layer_norms,
    concatenations_of_one_type,
    layer_norms_in_rows,
    instance_norms_as_group_norms,
    complete_group_norms,
    group_norms_in_four_dimensions,
    batch_norms_as_arithmetic,
    pads_as_concatenation,
    rolls_as_concatenation,
    volumes_by_slices,
    transposed_sequences,
    batches_as_one_image,
    convolutions_as_shaders_take_them,
    transposed_groups_as_zeros,
    pools_as_images,
    means_of_whole_images,
    adaptive_pools_as_maxima,
    volumes_as_images,
    conditions_in_full_rank,
    extremes_alone,
    reductions_keep_dimensions,
    softmaxes_in_rows,
    squeezes_as_views,
    splits_as_slices,
    unbinds_as_selections,
)


# What a program keeps for itself alone may be left out; another method may read what this one writes.
_OF_OWN_STATE: tuple[RepairRule, ...] = (
    unread_state_dropped,
    equal_state_kept_once,
    quantized_caches_as_floats,
    cache_writes_in_place,
)


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
    chosen = (rule for rule in AFTER_TABLES if rule not in _LEFT_OUT[state])
    return tuple(_IN_HALF.get(rule, rule) if half else rule for rule in chosen)


_IN_HALF: Mapping[RepairRule, RepairRule] = MappingProxyType({raise_mask_fills: raise_mask_fills_in_half})
_STANDS_FOR: Mapping[RepairRule, RepairRule] = MappingProxyType({new: old for old, new in _IN_HALF.items()})

# What repairs require and ensure beyond what all do.
CONTRACTS: Mapping[RepairRule, Contract] = MappingProxyType(
    {
        fold_constants: Contract(after=(inputs_in_order, constants_in_order, copies_in_order)),
        raise_mask_fills: Contract(after=(fold_constants,)),
        raise_mask_fills_in_half: Contract(after=(fold_constants,)),
        widen_integer_matmuls: Contract(removes=(torch.ops.aten._int_mm.default,)),  # noqa: SLF001 - the operator's name
        attention_in_four_dimensions: Contract(after=(llm_operators_written_out, stacks_as_slices)),
        write_out_attention: Contract(after=(raise_mask_fills, attention_in_four_dimensions)),
        widen_long_half_matmuls: Contract(after=(write_out_attention,)),
        widen_long_half_softmaxes: Contract(after=(write_out_attention,)),
        expansions_as_broadcasts: Contract(after=(write_out_attention,)),
        write_out_rms_norm: Contract(removes=(torch.ops.aten.rms_norm.default,)),
        scalars_as_tensors: Contract(after=(write_out_attention, write_out_rms_norm)),
        layer_norms_in_rows: Contract(after=(complete_layer_norms,)),
        complete_group_norms: Contract(after=(instance_norms_as_group_norms,)),
        conditions_in_full_rank: Contract(after=(cache_writes_as_choices, write_out_attention)),
        softmaxes_in_rows: Contract(after=(write_out_attention,)),
    }
)
_ANY = Contract()


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """A program after repairs, and what they did."""

    exported: ExportedProgram
    repairs: tuple[Repair, ...]


def repair(exported: ExportedProgram, rules: Sequence[RepairRule]) -> Repaired:
    """Apply each rule in order. LoweringError names one that stands before what it requires, or breaks what it ensures."""
    done: list[Repair] = []
    with unguarded_convolutions():
        for at, rule in enumerate(rules):
            contract = CONTRACTS.get(rule, _ANY)
            contract.require(rule, [_STANDS_FOR.get(other, other) for other in rules[at:]])
            repaired, repairs = rule(exported)
            if repairs:
                contract.ensure(rule, exported, repaired)
            exported = repaired
            done.extend(repairs)
    return Repaired(exported=exported, repairs=tuple(done))
