"""Would a runtime load this file, and compute what it says? Answered from the bytes alone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from vkfuse.pte.calls import Call, Site, site_of
from vkfuse.pte.delegation import kernel_names
from vkfuse.pte.enums import ScalarType, VkDataType
from vkfuse.pte.findings import Finding
from vkfuse.pte.model import DelegateCall, Method, PteFile, Tensor
from vkfuse.pte.rules import RULES
from vkfuse.pte.runtimes import DEFAULT, Runtime, cpu_kernels, find_runtime
from vkfuse.pte.shader_names import shader_names, staging_shader_names
from vkfuse.pte.vulkan import BACKEND_ID, Graphs, VkTensor, VulkanGraph, vulkan_graphs

_ALWAYS_LINKED: Final = ("prim", "portable")

_VULKAN_TYPES: Final = {
    ScalarType.BOOL: VkDataType.BOOL,
    ScalarType.BYTE: VkDataType.UINT8,
    ScalarType.CHAR: VkDataType.INT8,
    ScalarType.INT: VkDataType.INT32,
    ScalarType.LONG: VkDataType.INT64,
    ScalarType.HALF: VkDataType.FLOAT16,
    ScalarType.FLOAT: VkDataType.FLOAT32,
    ScalarType.DOUBLE: VkDataType.FLOAT64,
}
# What maybe_cast_and_copy_into_staging and its counterpart convert (runtime/graph/ComputeGraph.cpp).
_CASTS: Final = {
    (ScalarType.LONG, VkDataType.INT32),
    (ScalarType.DOUBLE, VkDataType.FLOAT32),
    (ScalarType.HALF, VkDataType.FLOAT32),
}


def lint(pte: PteFile, runtime: str = DEFAULT, *, graphs: Graphs | None = None) -> tuple[Finding, ...]:
    """Return what `runtime` fails on or gets wrong, each finding once. InputError, FormatError."""
    graphs = vulkan_graphs(pte) if graphs is None else graphs
    target = find_runtime(runtime)
    findings: dict[Finding, None] = {}
    for method in pte.methods:
        findings.update(dict.fromkeys((*_kernels(method), *_external_tensors(method))))
        for index, delegate in enumerate(method.delegates):
            where = f"{method.name}/{index}"
            graph = graphs.get((method.name, index))
            if graph is None:
                findings.update(dict.fromkeys(_foreign(delegate.id, where)))
                continue
            site = site_of(delegate, graph, where)
            findings.update(dict.fromkeys(_delegate(site, target)))
            findings.update(dict.fromkeys(_boundary(method, index, graph, where)))
    return tuple(findings)


def faults(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings that are no notes."""
    return tuple(finding for finding in findings if finding.effect != "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """A fault of one operator call: `method` and `delegate` say where, `node_id` is the call's own number there."""

    method: str
    delegate: int
    node_id: int
    finding: Finding


def blame(pte: PteFile, runtime: str = DEFAULT, *, graphs: Graphs | None = None) -> Iterator[Blame]:
    """Yield each faulty operator call; findings of the file as a whole have none. InputError, FormatError."""
    target = find_runtime(runtime)
    for (method, index), graph in (vulkan_graphs(pte) if graphs is None else graphs).items():
        delegate = next(m for m in pte.methods if m.name == method).delegates[index]
        site = site_of(delegate, graph, f"{method}/{index}")
        for call in graph.chain:
            for finding in faults(_operator(Call(site, call), target)):
                yield Blame(method=method, delegate=index, node_id=call.node_id, finding=finding)


def _kernels(method: Method) -> Iterator[Finding]:
    """Every CPU operator needs a kernel; those outside the portable library must be linked."""
    libraries = cpu_kernels()
    for name in dict.fromkeys(kernel_names(method)):
        library = libraries.get(name)
        if library is None:
            yield _kernel(
                name, method, "no-kernel", "register a kernel for it in the application", fails=True
            )
        elif library not in _ALWAYS_LINKED:
            yield _kernel(
                name, method, f"needs-{library}-kernels", f"link the {library} kernels", fails=False
            )


def _kernel(name: str, method: Method, code: str, hint: str, *, fails: bool) -> Finding:
    """Return a finding about a CPU operator."""
    return Finding(
        kind="cpu-kernel",
        name=name,
        where=method.name,
        code=code,
        hint=hint,
        effect="fails" if fails else "note",
    )


def _foreign(backend: str, where: str) -> Iterator[Finding]:
    """Yield a note on a delegate that only another backend can judge."""
    if backend != BACKEND_ID:
        hint = "link the backend; its blob is not checked"
        yield Finding(
            kind="format", name=backend, where=where, code="other-backend", hint=hint, effect="note"
        )


def _delegate(site: Site, target: Runtime) -> Iterator[Finding]:
    """Operators, shaders, rules and constants of one Vulkan delegate."""
    yield from _shaders(staging_shader_names(site), site, target)
    for call in site.graph.chain:
        yield from _operator(Call(site, call), target)
    yield from _external_constants(site)


def _operator(call: Call, target: Runtime) -> Iterator[Finding]:
    """Yield what is wrong with one operator call."""
    if call.name not in target.operators:
        hint = f"not in the Vulkan runtime {target.version}; keep it off the delegate"
        yield call.finding("not-registered", "fails", hint)
        return
    yield from _shaders(shader_names(call), call.site, target, call.name)
    for rule in RULES:
        yield from rule(call)


def _shaders(names: Iterable[str], site: Site, target: Runtime, operator: str = "") -> Iterator[Finding]:
    """Yield the shaders that the runtime lacks; nothing where its shaders are not known."""
    if target.shaders is None:
        return
    hint = f"asked for by {operator or 'the inputs and outputs'}; keep this type or storage off the delegate"
    for name in names:
        if name not in target.shaders:
            yield Finding(
                kind="shader", name=name, where=site.where, code="no-shader", hint=hint, operator=operator
            )


def _external_tensors(method: Method) -> Iterator[Finding]:
    """Yield a note for a program's tensors that only a .ptd can supply."""
    tensors = (value for value in method.values if isinstance(value, Tensor) and value.external)
    yield from _external(sum(tensor.data is None for tensor in tensors), method.name)


def _external_constants(site: Site) -> Iterator[Finding]:
    """Yield a note for a delegate's constants that only a .ptd can supply."""
    yield from _external(sum(constant.data is None for constant in site.graph.constants), site.where)


def _external(missing: int, where: str) -> Iterator[Finding]:
    """Yield a note for `missing` constants."""
    if missing:
        yield Finding(
            kind="format",
            name=f"{missing} constants",
            where=where,
            code="external-constants",
            hint="load the .ptd that holds them",
            effect="note",
        )


def _boundary(method: Method, index: int, graph: VulkanGraph, where: str) -> Iterator[Finding]:
    """Yield what VulkanBackend::execute refuses: a number of arguments, a type that it does not convert."""
    ids = (*graph.input_ids, *graph.output_ids)
    inputs = [graph.values[value] for value in graph.input_ids]
    if any(isinstance(value, VkTensor) and value.constant for value in inputs):
        yield _format("inputs", where, "constant-input", "the runtime refuses constants as inputs; fold them")
    for call in method.instructions:
        if not isinstance(call, DelegateCall) or call.delegate_index != index:
            continue
        if len(call.args) != len(ids):
            hint = f"the graph declares {len(ids)} inputs and outputs, the call supplies {len(call.args)}"
            yield _format("arguments", where, "argument-count", hint)
            continue
        for position, (argument, value) in enumerate(zip(call.args, ids, strict=True)):
            hint = _conversion(method.values[argument], graph.values[value])
            if hint:
                yield _format(f"argument {position}", where, "boundary-type", hint)


def _conversion(outside: object, inside: object) -> str:
    """Say which conversion the runtime lacks, nothing where it has it."""
    if not (isinstance(outside, Tensor) and isinstance(inside, VkTensor)) or inside.constant:
        return ""
    staging = inside.dtype if inside.staging_dtype is VkDataType.UNSET else inside.staging_dtype
    if _VULKAN_TYPES.get(outside.scalar_type) is staging or (outside.scalar_type, staging) in _CASTS:
        return ""
    return f"{outside.scalar_type.label} outside, {staging.label} inside; the runtime does not convert"


def _format(name: str, where: str, code: str, hint: str) -> Finding:
    """Return a finding about the file's structure."""
    return Finding(kind="format", name=name, where=where, code=code, hint=hint)
