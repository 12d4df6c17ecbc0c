"""Run variants of the shader over the cases on a Vulkan device, and compare with the reference, bit for bit."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vkfuse.glsl.build import validate_shipped
from vkfuse.glsl.cases import CASES, Case, lookup_of
from vkfuse.glsl.layouts import Array, Int8, Int32, numpy_type
from vkfuse.glsl.manifest import digest, shipped_spirv
from vkfuse.glsl.operands import Lookup, looked_up
from vkfuse.glsl.variants import VARIANTS, DType, Variant
from vkfuse.glsl.vulkan.device import Device
from vkfuse.glsl.vulkan.pipeline import Pipeline, open_pipeline

SpirvOf: TypeAlias = Callable[[Variant], bytes]
MAX_CASES = 64  # descriptor sets of a pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a variant made of a case; `problem` is empty when all is right."""

    variant: str
    case: str
    problem: str

    @property
    def ok(self) -> bool:
        """Whether the output is what it should be, and nothing else was touched."""
        return not self.problem


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """All outcomes on a device.

    `shaders` is the digest of the SPIR-V. `spirv_val` and `validation_layer` say whether the validators were there;
    `messages` are the layer's.
    """

    device: dict[str, object]
    shaders: str
    outcomes: tuple[Outcome, ...]
    spirv_val: bool
    validation_layer: bool
    messages: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every outcome is right and the validation layer said nothing."""
        return not self.messages and all(outcome.ok for outcome in self.outcomes)

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {"schema": "vkfuse.shader-check/1", "ok": self.ok, **asdict(self)}


def check(
    device: Device,
    variants: Sequence[Variant] = VARIANTS,
    cases: Sequence[Case] = CASES,
    *,
    spirv_of: SpirvOf = shipped_spirv,
    progress: Callable[[str], None] = lambda _: None,
) -> CheckReport:
    """Run every variant over every case; `progress` hears each variant's name."""
    lookups = [(case, lookup_of(case)) for case in cases]
    outcomes: list[Outcome] = []
    for variant in variants:
        progress(variant.name)
        outcomes += check_variant(device, variant, lookups, spirv_of(variant))
    return CheckReport(
        device=device.info.as_dict(),
        shaders=digest(spirv_of(variant) for variant in variants),
        outcomes=tuple(outcomes),
        spirv_val=validate_shipped(),
        validation_layer=device.instance.validated,
        messages=tuple(device.instance.messages),
    )


def check_variant(
    device: Device, variant: Variant, lookups: Iterable[tuple[Case, Lookup]], spirv: bytes
) -> Iterator[Outcome]:
    """Run one variant over cases; a pipeline is compiled once for a local size."""
    with ExitStack() as stack:
        pipelines: dict[tuple[int, ...], Pipeline] = {}
        for case, lookup in lookups:
            problem = unfit(device, variant, case, lookup)
            if not problem:
                local = case.local_size
                if local not in pipelines:
                    opened = open_pipeline(device, spirv, variant.bindings, local, sets=MAX_CASES)
                    pipelines[local] = stack.enter_context(opened)
                problem = compare(pipelines[local], variant, case, lookup)
            yield Outcome(variant=variant.name, case=str(case), problem=problem)


def unfit(device: Device, variant: Variant, case: Case, lookup: Lookup) -> str:
    """Why a device cannot run a case at all, or nothing."""
    if variant.needs_16bit_storage and not device.info.storage_16bit:
        return "the device has no storageBuffer16BitAccess"
    if np.prod(case.local_size) > device.info.max_work_group_invocations:
        return f"the device allows {device.info.max_work_group_invocations} invocations a work group"
    if max(lookup.sizes[0] // 4, lookup.sizes[1]) > device.info.max_image_3d:
        return f"the device allows textures of {device.info.max_image_3d} texels a side"
    return ""


def compare(pipeline: Pipeline, variant: Variant, case: Case, lookup: Lookup) -> str:
    """Run a case and describe the first difference, or nothing."""
    output, intact = looked_up(pipeline, variant, lookup, case.local_size)
    if not intact:
        return "wrote behind the end of the output"
    scales = lookup.scales.astype(numpy_type(variant.scales))
    expected = embedding(lookup.values, scales, lookup.group_size, lookup.indices, variant.dtype)
    return first_difference(output, expected)


def first_difference(output: Array, expected: Array) -> str:
    """The first element whose bits differ, or nothing; what should be infinite or NaN may be anything."""
    bits = np.dtype(f"u{expected.dtype.itemsize}")
    different = np.argwhere((output.view(bits) != expected.view(bits)) & np.isfinite(expected))
    if not len(different):
        return ""
    at = tuple(int(i) for i in different[0])
    return f"{len(different)} of {expected.size} differ, first at {list(at)}: {output[at]!r} for {expected[at]!r}"


def embedding(
    values: Int8, scales: npt.NDArray[Any], group_size: int, indices: Int32, dtype: DType
) -> npt.NDArray[Any]:
    """Rows `indices` of values [V, D] times scales [V, D/group_size]: [*indices.shape, D], as every variant must have it.

    The product is a float32; a half output is its nearest half, ties to even. A row outside the table is zero.
    """
    vocab, columns = values.shape
    group = np.arange(columns) // group_size
    out = np.zeros((*indices.shape, columns), np.float32)
    for position in np.ndindex(indices.shape):
        row = int(indices[position])
        if 0 <= row < vocab:
            with np.errstate(invalid="ignore"):  # zero times an infinite scale
                out[position] = values[row].astype(np.float32) * scales[row].astype(np.float32)[group]
    return out.astype(numpy_type(dtype))
