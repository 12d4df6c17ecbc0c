"""Exact rewrites around what the runtime lacks; each keeps every value and reports what it did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch.export import ExportedProgram

from vkfuse.program.guards import sizes_left_open
from vkfuse.rewrite.repairs import (
    activations,
    affine,
    arithmetic,
    assembled,
    attention,
    batch_norms,
    branches,
    cached_attention,
    caches,
    complexes,
    convolutions,
    cumulated,
    dimensions,
    embeddings,
    experts,
    fills,
    fold,
    functions,
    images,
    in_place,
    indices,
    kernels,
    llm_operators,
    matmuls,
    once,
    orders,
    outer_writes,
    permutations,
    positions,
    quantized_caches,
    quantized_rows,
    reductions,
    repeats,
    resized,
    sampled,
    sorts,
    stacks,
    states,
    truths,
)
from vkfuse.rewrite.repairs.contract import Contract
from vkfuse.rewrite.repairs.each import Repair, RepairRule
from vkfuse.rewrite.repairs.experts import groups, rows
from vkfuse.runtime.operators import NEWEST
from vkfuse.runtime.operators.attention import ATTENDS_SINCE
from vkfuse.runtime.operators.binary import COMPARES_SINCE
from vkfuse.runtime.operators.lookup import INDEXES_FIRST_UNTIL
from vkfuse.runtime.record import Version

# Before the survey: they bring tables to where it can see them. The order within each tuple is the order applied.
BEFORE_SURVEY: tuple[RepairRule, ...] = (
    positions.assertions_dropped,
    indices.known_masks_as_positions,
    branches.hoist_branch_tables,
    embeddings.renormalize_whole_tables,
    matmuls.integer_matmuls_as_linears,
    embeddings.bags_as_lookups,
    groups.choices_as_arithmetic,
    experts.experts_as_wide_linears,
    rows.grouped_products_of_all,
)


def before_survey(*, check_indices: bool) -> tuple[RepairRule, ...]:
    """The repairs before the survey; the check of indices, where it is asked for, sees all lookups that they make."""
    return (*BEFORE_SURVEY, embeddings.indices_checked) if check_indices else BEFORE_SURVEY


# After the tables. CONTRACTS has what has to stand in front of what.
AFTER_TABLES: tuple[RepairRule, ...] = (
    orders.inputs_in_order,
    orders.constants_in_order,
    orders.copies_in_order,
    orders.strided_copies_in_order,
    complexes.complex_numbers_as_pairs,
    llm_operators.llm_operators_written_out,
    dimensions.sums_in_four_dimensions,
    positions.positions_as_tensors,
    positions.unread_numbers_dropped,
    assembled.blanks_by_sizes,
    fold.fold_constants,
    kernels.buckets_as_counts,
    kernels.histograms_as_counts,
    functions.powers_of_sizes_as_tensors,
    functions.powers_of_two,
    functions.logarithms_of_one_more,
    functions.error_functions_less_one,
    functions.hypotenuses,
    functions.signs_as_comparisons,
    functions.signs_of_others,
    functions.extremes_of_numbers,
    functions.rounded_to_decimals,
    functions.sums_with_products,
    functions.angles_of_real_numbers,
    cumulated.cumulative_products,
    cumulated.cumulative_log_sums,
    cumulated.cumulative_extremes,
    sorts.least_of_several,
    sorts.medians_of_all,
    sorts.medians_along_one,
    sorts.most_frequent,
    kernels.remainders_with_sign,
    kernels.shifts_of_tensors,
    kernels.random_by_sizes,
    indices.known_indices_as_slices,
    indices.indices_from_the_start,
    indices.pairs_of_places,
    indices.places_selected,
    indices.taken_by_gathering,
    outer_writes.scattered_rows_looked_up,
    outer_writes.writes_along_one_dimension,
    sorts.sorts_as_topk,
    complexes.spectra_as_convolutions,
    sampled.resampled_by_matrices,
    sampled.grids_from_centre_to_centre,
    activations.exponential_units_written_out,
    activations.exponentials_less_one,
    activations.mish_written_out,
    once.aliases_as_themselves,
    once.ands_with_true,
    states.copies_as_sources,
    assembled.rows_as_slices,
    assembled.assignments_as_concatenation,
    assembled.empties_as_zeros,
    states.unread_state_dropped,
    states.equal_state_kept_once,
    once.computed_once,
    fills.raise_mask_fills,
    reductions.extremes_alone,
    reductions.variances_written_out,
    reductions.row_reductions_scaled,
    quantized_caches.quantized_caches_as_floats,
    quantized_rows.rows_quantized_in_floats,
    in_place.cache_writes_in_place,
    caches.cache_writes_as_choices,
    caches.cache_writes_as_products,
    affine.decompose_affine,
    affine.tokens_by_other_points,
    affine.activations_as_floats,
    matmuls.widen_integer_matmuls,
    stacks.stacks_as_slices,
    attention.attention_in_four_dimensions,
    cached_attention.attention_over_caches,
    attention.write_out_attention,
    matmuls.computed_matrices_as_batches,
    repeats.repeats_as_rows,
    repeats.repeats_as_concatenation,
    matmuls.long_products_in_parts,
    matmuls.widen_long_half_matmuls,
    reductions.widen_long_half_softmaxes,
    permutations.permutations_in_one,
    permutations.dimensions_from_the_front,
    resized.expansions_as_broadcasts,
    arithmetic.write_out_rms_norm,
    activations.powers_written_out,
    reductions.log_softmaxes_keep_infinity,
    activations.clamps_as_bounds,
    activations.bounds_as_clamps,
    activations.maxima_as_minima,
    activations.reciprocals_as_quotients,
    functions.logarithms_of_ten,
    arithmetic.write_out_softplus,
    arithmetic.write_out_bilinear,
    arithmetic.write_out_cosine_similarity,
    arithmetic.scalars_as_tensors,
    arithmetic.complete_layer_norms,
    arithmetic.constants_of_one_type,
    arithmetic.concatenations_of_one_type,
    arithmetic.layer_norms_in_rows,
    arithmetic.instance_norms_as_group_norms,
    arithmetic.complete_group_norms,
    arithmetic.write_out_group_norms,
    arithmetic.group_norms_in_four_dimensions,
    batch_norms.batch_norms_as_arithmetic,
    repeats.pads_as_concatenation,
    repeats.rolls_as_concatenation,
    images.patches_by_slices,
    images.images_of_tiles,
    images.volumes_by_slices,
    images.transposed_sequences,
    images.batches_as_one_image,
    convolutions.convolutions_as_shaders_take_them,
    convolutions.transposed_groups_as_zeros,
    resized.pools_as_images,
    images.adaptive_pools_as_maxima,
    images.adaptive_pools_as_means,
    images.volumes_as_images,
    images.mean_volumes_as_images,
    images.strides_of_pools,
    cumulated.cumulative_sums_in_steps,
    resized.splits_as_slices,
    resized.unbinds_as_selections,
    dimensions.operators_in_four_dimensions,
    truths.negations_of_bits,
    truths.equalities_as_bounds,
    truths.kinds_as_comparisons,
    truths.signs_as_choices,
    truths.whole_numbers_as_choices,
    truths.products_of_bits,
    truths.truths_of_any,
    truths.truths_as_choices,
    truths.numbers_stored,
    resized.conditions_in_full_rank,
    reductions.outermost_reduced,
    reductions.reductions_keep_dimensions,
    reductions.softmaxes_in_rows,
    resized.squeezes_as_views,
)


# What a program keeps for itself alone may be left out; another method may read what this one writes.
_OF_OWN_STATE: tuple[RepairRule, ...] = (
    states.unread_state_dropped,
    states.equal_state_kept_once,
    quantized_caches.quantized_caches_as_floats,
    in_place.cache_writes_in_place,
)


class State(StrEnum):
    """Whose the state of a program is: its own and a delegate's, its own, or that of several methods."""

    IN_PLACE = "in-place"
    OWN = "own"
    SHARED = "shared"


_LEFT_OUT: Mapping[State, tuple[RepairRule, ...]] = {
    State.IN_PLACE: (),
    State.OWN: (in_place.cache_writes_in_place,),
    State.SHARED: _OF_OWN_STATE,
}


def after_tables(*, half: bool, state: State, version: Version = NEWEST) -> tuple[RepairRule, ...]:
    """The repairs after the tables for the precision that the file computes in, for what its state and runtime allow."""
    left_out = (*_LEFT_OUT[state], *(_SUMS_OF_FLOATS if half else ()))
    known = (
        rule for rule in AFTER_TABLES if _SINCE.get(rule, version) <= version <= _UNTIL.get(rule, version)
    )
    chosen = (rule for rule in known if rule not in left_out)
    return tuple(_IN_HALF.get(rule, rule) if half else rule for rule in chosen)


# Repairs that use what a runtime is known to have since a version.
_SINCE: Mapping[RepairRule, Version] = {
    cached_attention.attention_over_caches: ATTENDS_SINCE,
    **dict.fromkeys(
        (
            *(
                functions.logarithms_of_one_more,
                functions.logarithms_of_ten,
                truths.negations_of_bits,
                truths.equalities_as_bounds,
            ),
            *(truths.kinds_as_comparisons, truths.signs_as_choices, truths.truths_as_choices),
            *(truths.whole_numbers_as_choices, truths.products_of_bits, truths.truths_of_any),
        ),
        COMPARES_SINCE,
    ),
}
# Repairs for what a later runtime has.
_UNTIL: Mapping[RepairRule, Version] = {indices.places_selected: INDEXES_FIRST_UNTIL}
# The delegate would sum halves where the CPU's kernel sums floats, and halves have no such parts.
_SUMS_OF_FLOATS: tuple[RepairRule, ...] = (
    arithmetic.write_out_group_norms,
    reductions.row_reductions_scaled,
)
_IN_HALF: Mapping[RepairRule, RepairRule] = {
    fills.raise_mask_fills: fills.raise_mask_fills_in_half,
    reductions.log_softmaxes_keep_infinity: reductions.log_softmaxes_keep_infinity_in_half,
}
_STANDS_FOR: Mapping[RepairRule, RepairRule] = {new: old for old, new in _IN_HALF.items()}

# What repairs require and ensure beyond what all do.
CONTRACTS: Mapping[RepairRule, Contract] = {
    fold.fold_constants: Contract(
        after=(orders.inputs_in_order, orders.constants_in_order, orders.copies_in_order)
    ),
    fills.raise_mask_fills: Contract(after=(fold.fold_constants,)),
    fills.raise_mask_fills_in_half: Contract(after=(fold.fold_constants,)),
    matmuls.widen_integer_matmuls: Contract(removes=(torch.ops.aten._int_mm.default,)),  # noqa: SLF001 - the operator's name
    dimensions.operators_in_four_dimensions: Contract(
        after=(cumulated.cumulative_sums_in_steps, repeats.repeats_as_concatenation)
    ),
    attention.attention_in_four_dimensions: Contract(
        after=(llm_operators.llm_operators_written_out, stacks.stacks_as_slices)
    ),
    cached_attention.attention_over_caches: Contract(after=(in_place.cache_writes_in_place,)),
    attention.write_out_attention: Contract(
        after=(fills.raise_mask_fills, attention.attention_in_four_dimensions)
    ),
    matmuls.widen_long_half_matmuls: Contract(after=(attention.write_out_attention,)),
    reductions.widen_long_half_softmaxes: Contract(after=(attention.write_out_attention,)),
    resized.expansions_as_broadcasts: Contract(after=(attention.write_out_attention,)),
    arithmetic.write_out_rms_norm: Contract(removes=(torch.ops.aten.rms_norm.default,)),
    activations.reciprocals_as_quotients: Contract(after=(activations.powers_written_out,)),
    arithmetic.scalars_as_tensors: Contract(
        after=(attention.write_out_attention, arithmetic.write_out_rms_norm)
    ),
    reductions.row_reductions_scaled: Contract(
        after=(reductions.extremes_alone, reductions.variances_written_out)
    ),
    quantized_rows.rows_quantized_in_floats: Contract(after=(reductions.row_reductions_scaled,)),
    arithmetic.layer_norms_in_rows: Contract(after=(arithmetic.complete_layer_norms,)),
    arithmetic.complete_group_norms: Contract(after=(arithmetic.instance_norms_as_group_norms,)),
    arithmetic.write_out_group_norms: Contract(after=(arithmetic.complete_group_norms,)),
    resized.conditions_in_full_rank: Contract(
        after=(caches.cache_writes_as_choices, attention.write_out_attention)
    ),
    reductions.softmaxes_in_rows: Contract(after=(attention.write_out_attention,)),
}
_ANY = Contract()


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """A program after repairs, and what they did."""

    exported: ExportedProgram
    repairs: tuple[Repair, ...]


def repair(exported: ExportedProgram, rules: Sequence[RepairRule]) -> Repaired:
    """Apply each rule in order. LoweringError names one that stands before what it requires, or breaks what it ensures."""
    done: list[Repair] = []
    with sizes_left_open():
        for at, rule in enumerate(rules):
            contract = CONTRACTS.get(rule, _ANY)
            contract.require(rule, [_STANDS_FOR.get(other, other) for other in rules[at:]])
            repaired, repairs = rule(exported)
            if repairs:
                contract.ensure(rule, exported, repaired)
            exported = repaired
            done.extend(repairs)
    return Repaired(exported=exported, repairs=tuple(done))
