"""Files that earlier runs lowered, by the graphs that they were lowered from: new weights are put in without lowering.

The key of an entry is the SHA-256 of all that a lowering depends on but for the numbers of weights: graphs with repairs and
tables done, options, versions, and constants that may steer (of one element, no floats and no packs, what state starts as).
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch.export import ExportedProgram

from vkfuse.entries import Entries, MissedError, damaged, made_with
from vkfuse.lower.lowering import Lowered
from vkfuse.lower.owned import StateOutsideError, StatePlace
from vkfuse.mapping import hashed
from vkfuse.measure.names import KEY
from vkfuse.options import Options
from vkfuse.pages import digest
from vkfuse.pipeline.method import Methods, to_lower
from vkfuse.program.content import content
from vkfuse.pte import read_pte
from vkfuse.pte.model import Method, NamedData, PteFile, Tensor
from vkfuse.pte.place import Place
from vkfuse.pte.values import Extent
from vkfuse.pte.vulkan import VkTensor, VulkanGraph, vulkan_graphs
from vkfuse.pte.vulkan_writer import write_vulkan
from vkfuse.report.build import Reasons
from vkfuse.report.stored import restored, stored

_NUMBERS: Final = {torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.uint8}
_FUSED: Final = "et_vk.linear_"
_ELEMENT: Final = 8  # bytes of the largest
_StatePlaces = Mapping[str, tuple[StatePlace, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """What is kept of a lowering: hashes of its file, whole and without tables, and of each constant by method and name."""

    sha256: str
    frame: str
    contents: Mapping[str, Mapping[str, str]]
    reasons: Mapping[str, Reasons]
    state: _StatePlaces


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """A file of an earlier run with the constants of this one.

    For each method why operators are on the CPU, and where the buffers are that it writes.
    """

    file: PteFile
    reasons: Mapping[str, Reasons]
    state: _StatePlaces


class Cache:
    """Entries for methods that are ready to be lowered, in the folder that the options name, which is made.

    Raises MissedError for programs whose lowering depends on more than a key tells, OutputError for the folder.
    """

    def __init__(self, methods: Methods, options: Options) -> None:
        if options.cache is None:
            raise TypeError("no folder is named")
        self._entries = Entries(options.cache)
        self._entries.made()
        self._programs = to_lower(methods)
        self._check()
        self._contents = {name: dict(_contents(of)) for name, of in self._programs.items()}
        self.key = self._key(options)

    def earlier(self, named: Mapping[str, bytes]) -> Earlier:
        """Return the file of an earlier run with this one's constants and `named` data.

        MissedError; StateOutsideError where lowering raised that.
        """
        kept = self._entries.read(self.key)
        if isinstance(kept, dict) and "outside" in kept:
            raise StateOutsideError(str(kept["outside"]))
        with damaged():
            entry = restored(_Entry, kept)
            file = read_pte(self._entries.file(entry.sha256))
            sound = _frame(file) == entry.frame
        methods_of = (entry.contents, entry.reasons, entry.state)
        if not sound or any(of.keys() != self._contents.keys() for of in methods_of):
            raise MissedError("the entry's file is another, or damaged")
        with damaged():
            constants = _Constants(entry.contents, self._contents, self._programs)
            graphs = vulkan_graphs(file)
            methods = tuple(_with_constants(method, graphs, constants) for method in file.methods)
            data = (_renamed(each, constants, named, file.size) for each in file.named)
            entries = {each.key: each for each in data}
        if not named.keys() <= entries.keys() or (KEY in entries and KEY not in named):
            raise MissedError("the earlier file records other names")
        made = replace(file, methods=methods, named=tuple(entries.values()))
        return Earlier(file=made, reasons=entry.reasons, state=entry.state)

    def keep(self, file: Path, lowered: Lowered) -> None:
        """Store a lowered file for later runs. OutputError."""
        written = read_pte(file)
        sha256 = hashed(written.data).hex()
        entry = _Entry(
            sha256=sha256,
            frame=_frame(written),
            contents=self._contents,
            reasons=lowered.reasons,
            state=lowered.state,
        )
        self._entries.keep(self.key, stored(entry), file, sha256)

    def keep_outside(self, error: StateOutsideError) -> None:
        """Store that caches of these programs cannot be written in place. OutputError."""
        self._entries.keep(self.key, {"outside": error.message})

    def _check(self) -> None:
        """Raise MissedError for programs whose lowering depends on more than a key tells."""
        for exported in self._programs.values():
            if any(True for _ in exported.graph_module.named_children()):
                raise MissedError("programs with branches are not cached")

    def _key(self, options: Options) -> str:
        said = [*made_with(options), options.runtime, options.vulkan, options.names]
        found = hashlib.sha256(repr(said).encode())
        for name, exported in self._programs.items():
            for line in (name, *_lines(exported, self._contents[name])):
                found.update(line.encode() + b"\0")
        return found.hexdigest()


def _frame(file: PteFile) -> str:
    """Return the SHA-256 of what is taken over from a file: all but the tables, in whose place others are put."""
    tables = sorted({(each.data_at.offset, each.data_at.end) for each in file.named if _is_table(each)})
    found, at = hashlib.sha256(), 0
    for start, end in (*tables, (len(file.data), 0)):
        found.update(digest(file.data[at:start]))
        at = end
    return found.hexdigest()


def _is_table(entry: NamedData) -> bool:
    return len(entry.data) > _ELEMENT


def _tensors(exported: ExportedProgram) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the constants of a program by name."""
    for name, value in {**exported.state_dict, **exported.constants}.items():
        if isinstance(value, torch.Tensor):
            yield name, value


def _contents(exported: ExportedProgram) -> Iterator[tuple[str, str]]:
    yield from ((name, content(value)[0]) for name, value in _tensors(exported))


def _lines(exported: ExportedProgram, contents: Mapping[str, str]) -> Iterator[str]:
    """Yield what a lowering depends on: the graph, its signature, call and ranges, shapes and types of constants."""
    for node in exported.graph.nodes:
        value = torch.utils._pytree.tree_map(_described, node.meta.get("val"))  # noqa: SLF001 - torch.utils has no other
        yield f"{node.op} {node.name} {node.target} {node.args!r} {node.kwargs!r} {value!r}"
    yield repr((exported.graph_signature, exported.call_spec))
    yield repr(sorted((str(symbol), str(of)) for symbol, of in exported.range_constraints.items()))
    state, packs = {*exported.graph_signature.buffers_to_mutate.values()}, {*_packs(exported)}
    for name, value in _tensors(exported):
        data = value.dtype in _NUMBERS or name in packs
        steers = name in state or value.numel() <= 1 or not data
        yield f"{name} {_described(value)} {contents[name] if steers else ''}"


def _packs(exported: ExportedProgram) -> Iterator[str]:
    """Yield the names of constants that fused linears alone read: sums of weights are integers, and steer nothing."""
    signature = exported.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    for node in exported.graph.find_nodes(op="placeholder"):
        if node.name in names and all(str(user.target).startswith(_FUSED) for user in node.users):
            yield names[node.name]


def _described(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return str(value)
    return (tuple(map(str, value.shape)), tuple(map(str, value.stride())), value.dtype, value.requires_grad)


class _Constants:
    """What stands for a constant of the earlier file now, found by its bytes."""

    def __init__(
        self,
        before: Mapping[str, Mapping[str, str]],
        now: Mapping[str, Mapping[str, str]],
        programs: Mapping[str, ExportedProgram],
    ) -> None:
        self._now: dict[str, set[str]] = {}
        for method, contents in before.items():
            for name, sha256 in contents.items():
                self._now.setdefault(sha256, set()).add(now[method].get(name, ""))
        self._tensors = {
            now[method][name]: value for method, of in programs.items() for name, value in _tensors(of)
        }

    def key(self, sha256: str, elements: int) -> str:
        """Return the SHA-256 of what stands for a constant. MissedError where that is in doubt."""
        found = self._now.get(sha256)
        if found is None:
            if elements > 1:
                raise MissedError(f"constant {sha256[:12]} was made of weights by the lowering")
            return sha256  # a number of the graph, which the key covers
        if len(found) > 1 or "" in found:
            raise MissedError(f"constant {sha256[:12]} stood for several weights that differ now")
        return next(iter(found))

    def data(self, sha256: str) -> memoryview | None:
        """Return the bytes of a constant of this run's programs."""
        value = self._tensors.get(sha256)
        if value is None or not value.numel():
            return None
        flat = value.detach().contiguous().reshape(-1).view(torch.uint8)
        return memoryview(flat.numpy().data)


def _renamed(entry: NamedData, constants: _Constants, named: Mapping[str, bytes], beyond: int) -> NamedData:
    """Return named data of the earlier file as they are now."""
    if entry.key in named:
        data: memoryview | None = memoryview(named[entry.key])
        key = entry.key
    else:
        key = constants.key(entry.key, len(entry.data) // 4)
        data = constants.data(key)
    if data is None:
        if _is_table(entry):
            raise MissedError(f"constant {key[:12]} is not one of this run's")
        return entry
    return replace(entry, key=key, data=data, data_at=Extent(beyond, len(data)))


def _with_constants(method: Method, graphs: Mapping[Place, VulkanGraph], constants: _Constants) -> Method:
    """Return a method that reads the constants of this run."""
    delegates = []
    for index, delegate in enumerate(method.delegates):
        graph = graphs.get(Place(method.name, index))
        if graph is None:
            raise MissedError("a delegate of another backend")
        blob = memoryview(write_vulkan(_graph(graph, constants), as_lowered=True))
        delegates.append(replace(delegate, processed=blob, processed_at=Extent(-1 - index, len(blob))))
    values = tuple(
        _value(value, constants) if isinstance(value, Tensor) else value for value in method.values
    )
    return replace(method, delegates=tuple(delegates), values=values)


def _graph(graph: VulkanGraph, constants: _Constants) -> VulkanGraph:
    elements = {
        value.constant_id: value.nbytes // value.dtype.bytes
        for value in graph.values
        if isinstance(value, VkTensor) and value.constant
    }
    if not all(constant.named for constant in graph.constants):
        raise MissedError("a delegate has constants of its own")
    return replace(
        graph,
        constants=tuple(
            replace(of, named_key=constants.key(of.named_key, elements.get(index, 0)))
            for index, of in enumerate(graph.constants)
        ),
    )


def _value(tensor: Tensor, constants: _Constants) -> Tensor:
    if not tensor.constant:
        return tensor
    if tensor.data is None:
        raise MissedError("a constant is in another file")
    elements = tensor.nbytes // tensor.scalar_type.bytes
    data = constants.data(constants.key(digest(tensor.data).hex(), elements))
    return tensor if data is None else replace(tensor, data=data)


def note(key: str, missed: str, *, verified: bool) -> str:
    """Return what a report says of the cache."""
    if missed:
        return f"cache: lowered in this run, since {missed}"
    checks = "judged, proved and verified" if verified else "judged and proved, not verified,"
    return (
        f"cache: not lowered in this run: an earlier run's file of the same graph, options and versions (entry "
        f"{key[:12]}) got this run's constants, and was {checks} as any other"
    )
