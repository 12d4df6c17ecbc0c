"""Would a runtime load this file, and compute what it says? Answered from the bytes alone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from vkfuse.lint.findings import Finding, FindingKind
from vkfuse.lint.operands import Reader
from vkfuse.lint.varying import Asked
from vkfuse.pte.delegates import VulkanDelegate, kernel_names, vulkan_delegates
from vkfuse.pte.enums import ScalarType, VkDataType
from vkfuse.pte.model import DelegateCall, KernelCall, Method, PteFile, Tensor, once_a_file
from vkfuse.pte.place import Place
from vkfuse.pte.vulkan import OperatorCall, VkTensor
from vkfuse.runtime.border import border_shaders
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.judge import beyond_textures, missing
from vkfuse.runtime.versions import DEFAULT, Runtime, cpu_kernels, find_runtime

_FAULTS: Final = ("fails", "wrong")
_ALWAYS_LINKED: Final = ("prim", "portable")
_TO_LINK: Final = {
    "optimized": Code.NEEDS_OPTIMIZED_KERNELS,
    "quantized": Code.NEEDS_QUANTIZED_KERNELS,
    "llm": Code.NEEDS_LLM_KERNELS,
}
_BY_POINTS: Final = frozenset(
    f"quantized_decomposed::{way}_per_{part}"
    for way in ("quantize", "dequantize")
    for part in ("token", "channel")
)
_POINTS: Final = 2  # the argument of these that has zero points
_UNTOLD: Final = "if a size varies that the file leaves open"
# What maybe_cast_and_copy_into_staging and its counterpart convert (runtime/graph/ComputeGraph.cpp).
_CASTS: Final = {
    (ScalarType.LONG, VkDataType.INT32),
    (ScalarType.DOUBLE, VkDataType.FLOAT32),
    (ScalarType.HALF, VkDataType.FLOAT32),
}


@once_a_file
def lint(pte: PteFile, runtime: str = DEFAULT) -> tuple[Finding, ...]:
    """Return what `runtime` fails on or gets wrong, each finding once. InputError, FormatError."""
    delegates, target = vulkan_delegates(pte), find_runtime(runtime)
    findings: dict[Finding, None] = {}
    for method in pte.methods:
        findings.update(dict.fromkeys((*_kernels(method), *_zero_points(method), *_external_tensors(method))))
        for index, of in enumerate(method.delegates):
            place = Place(method.name, index)
            if place not in delegates:
                other = _finding("format", of.id, place, Code.OTHER_BACKEND, "its blob is not checked")
                findings[other] = None
                continue
            delegate = delegates[place]
            findings.update(dict.fromkeys((*_delegate(pte, delegate, target), *_boundary(method, delegate))))
    return tuple(findings)


def faults(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings that are no notes."""
    return tuple(finding for finding in findings if finding.effect != "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """A fault of the operator call at a `position` in the delegate `where`; `node_id` is the call's own number there."""

    where: Place
    position: int
    node_id: int
    operator: str
    objection: Objection


def blame(pte: PteFile, runtime: str = DEFAULT) -> Iterator[Blame]:
    """Yield each faulty operator call; findings of the file as a whole have none. InputError, FormatError."""
    target = find_runtime(runtime)
    for delegate in vulkan_delegates(pte).values():
        asked = Asked(pte, delegate, target)
        for position, call in enumerate(delegate.graph.chain):
            for objection, surely in asked.objections(call):
                if surely and objection.code.effect in _FAULTS:
                    yield Blame(
                        where=delegate.place,
                        position=position,
                        node_id=call.node_id,
                        operator=call.name,
                        objection=objection,
                    )


def _kernels(method: Method) -> Iterator[Finding]:
    """Every CPU operator needs a kernel; those outside the portable library must be linked."""
    libraries = cpu_kernels()
    for name in dict.fromkeys(kernel_names(method)):
        library = libraries.get(name)
        if library is None and name.partition("::")[0] not in {
            known.partition("::")[0] for known in libraries
        }:
            yield _finding("cpu-kernel", name, Place(method.name), Code.NEEDS_OWN_KERNEL)
        elif library is None:
            yield _finding("cpu-kernel", name, Place(method.name), Code.NO_KERNEL)
        elif library not in _ALWAYS_LINKED:
            yield _finding("cpu-kernel", name, Place(method.name), _TO_LINK[library])


def _zero_points(method: Method) -> Iterator[Finding]:
    """Yield CPU kernels that read zero points of another type as int64."""
    for entry in method.instructions:
        name = method.operators[entry.op_index].name if isinstance(entry, KernelCall) else ""
        if not isinstance(entry, KernelCall) or name not in _BY_POINTS or len(entry.args) <= _POINTS:
            continue
        points = method.values[entry.args[_POINTS]]
        if isinstance(points, Tensor) and points.scalar_type is not ScalarType.LONG:
            kind = f"zero points are {points.scalar_type.label}"
            yield _finding("cpu-kernel", name, Place(method.name), Code.ZERO_POINTS_NOT_INT64, kind)


def _delegate(pte: PteFile, delegate: VulkanDelegate, target: Runtime) -> Iterator[Finding]:
    """Operators, shaders, rules and constants of one Vulkan delegate."""
    reader, graph, asked = Reader(delegate), delegate.graph, Asked(pte, delegate, target)
    inputs, outputs = reader.tensors(graph.input_ids), reader.tensors(graph.output_ids)
    for objection in missing(border_shaders(inputs, outputs), target):
        yield _of_call(objection, "", delegate)
    for objection in (o for tensor in (*inputs, *outputs) for o in beyond_textures(tensor)):
        yield _finding("format", "inputs and outputs", delegate.place, objection.code, objection.detail)
    for call in graph.chain:
        yield from _operator(asked, call, delegate)
    yield from _external_constants(delegate)


def _operator(asked: Asked, call: OperatorCall, delegate: VulkanDelegate) -> Iterator[Finding]:
    """Yield what is wrong with one operator call; what depends on values only a run can tell.

    What holds only for a size that varies, of which the file does not say so, is a note.
    """
    if not call.args:
        yield _finding("operator", call.name, delegate.place, Code.NO_OUTPUT, "an operator without arguments")
    for objection, surely in asked.objections(call):
        if surely and objection.code.effect != "depends":
            yield _of_call(objection, call.name, delegate)
        elif not surely and objection.code.effect in _FAULTS:
            yield replace(
                _of_call(objection, call.name, delegate), hint=f"{objection.detail}, {_UNTOLD}", effect="note"
            )


def _of_call(objection: Objection, operator: str, delegate: VulkanDelegate) -> Finding:
    """Return an objection to a call, or with no operator to the border, as a finding."""
    code, detail = objection.code, objection.detail
    if code is Code.NO_SHADER:
        asks = f"asked for by {operator or 'the inputs and outputs'}"
        return _finding("shader", detail, delegate.place, code, asks, operator)
    return _finding("operator", operator, delegate.place, code, detail, operator)


def _external_tensors(method: Method) -> Iterator[Finding]:
    """Yield a note for a program's tensors that only a .ptd can supply."""
    tensors = (value for value in method.values if isinstance(value, Tensor) and value.external)
    yield from _external(sum(tensor.data is None for tensor in tensors), Place(method.name))


def _external_constants(delegate: VulkanDelegate) -> Iterator[Finding]:
    """Yield a note for a delegate's constants that only a .ptd can supply."""
    yield from _external(sum(constant.data is None for constant in delegate.graph.constants), delegate.place)


def _external(count: int, where: Place) -> Iterator[Finding]:
    """Yield a note for `count` constants."""
    if count:
        yield _finding("format", f"{count} constants", where, Code.EXTERNAL_CONSTANTS)


def _boundary(method: Method, delegate: VulkanDelegate) -> Iterator[Finding]:
    """Yield what VulkanBackend::execute refuses: a number of arguments, a type that it does not convert."""
    graph, where = delegate.graph, delegate.place
    ids = (*graph.input_ids, *graph.output_ids)
    inputs = [graph.values[value] for value in graph.input_ids]
    if any(isinstance(value, VkTensor) and value.constant for value in inputs):
        yield _finding("format", "inputs", where, Code.CONSTANT_INPUT)
    written = {index for made in graph.chain for index in made.args[-1:]}
    outputs = [graph.values[index] for index in graph.output_ids if index not in written]
    if any(isinstance(value, VkTensor) and value.constant for value in outputs):
        yield _finding("format", "outputs", where, Code.CONSTANT_OUTPUT)
    for call in method.instructions:
        if not isinstance(call, DelegateCall) or call.delegate_index != where.delegate:
            continue
        if len(call.args) != len(ids):
            detail = f"the graph declares {len(ids)} inputs and outputs, the call supplies {len(call.args)}"
            yield _finding("format", "arguments", where, Code.ARGUMENT_COUNT, detail)
            continue
        for position, (argument, value) in enumerate(zip(call.args, ids, strict=True)):
            detail = _conversion(method.values[argument], graph.values[value])
            if detail:
                yield _finding("format", f"argument {position}", where, Code.BOUNDARY_TYPE, detail)


def _conversion(outside: object, inside: object) -> str:
    """Say which conversion the runtime lacks, nothing where it has it."""
    if not (isinstance(outside, Tensor) and isinstance(inside, VkTensor)) or inside.constant:
        return ""
    staging = inside.dtype if inside.staging_dtype is VkDataType.UNSET else inside.staging_dtype
    if outside.scalar_type is staging.scalar or (outside.scalar_type, staging) in _CASTS:
        return ""
    return f"{outside.scalar_type.label} outside, {staging.label} inside; the runtime does not convert"


def _finding(
    kind: FindingKind, name: str, where: Place, code: Code, detail: str = "", operator: str = ""
) -> Finding:
    """Return a finding with the effect of its code, and what helps."""
    effect = "note" if code.effect == "depends" else code.effect
    hint = "; ".join(part for part in (detail, code.remedy) if part)
    return Finding(kind=kind, name=name, where=where, code=code, hint=hint, effect=effect, operator=operator)
