"""Every byte of a .pte under a label, constants by who reads them; the labels sum to the file's size."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from vkfuse.measure.claims import Claim, Label, LedgerKind, Use, divide
from vkfuse.measure.shaders import stored_shaders
from vkfuse.pte.delegates import VulkanDelegate, vulkan_delegates
from vkfuse.pte.model import PteFile, Tensor, once_a_file
from vkfuse.pte.place import Place
from vkfuse.pte.values import Extent
from vkfuse.pte.vulkan import Constant, OperatorCall, ValueList, VkTensor, VulkanGraph
from vkfuse.runtime.operators import record_of
from vkfuse.runtime.operators.moves import PREPACK

_LARGEST_PADDING: Final = 1 << 16  # segments are aligned to at most 64 KiB
_GAP: Final = "unreferenced"
_VULKAN: Final = "vulkan"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """`bytes` of a file under a label, in `count` places; `kind` groups labels.

    `group` is the label without the numbers of delegates, which a diff counts by; `what` is it without places.
    """

    label: str
    kind: LedgerKind
    bytes: int
    count: int = 1
    group: str = ""
    what: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes of a file that have one label; `order` grows as the file's methods and delegates name them."""

    at: Extent
    kind: LedgerKind
    label: Label
    order: int


@once_a_file
def parts(pte: PteFile) -> tuple[Part, ...]:
    """Return all bytes in file order, each once. FormatError where a Vulkan blob is malformed."""
    claims = [*_claims(pte)]
    order = {id(claim): number for number, claim in enumerate(claims)}
    return tuple(
        _padding(piece.at, order[id(piece.claim)])
        if piece.claim.kind == _GAP and _is_padding(pte, piece.at)
        else Part(at=piece.at, kind=piece.claim.kind, label=piece.claim.label, order=order[id(piece.claim)])
        for piece in divide(claims)
    )


def _padding(at: Extent, order: int) -> Part:
    return Part(at=at, kind="padding", label=_label("padding"), order=order)


def ledger(pte: PteFile) -> tuple[LedgerEntry, ...]:
    """Return the labels of all bytes, the largest first. FormatError where a Vulkan blob is malformed."""
    totals: dict[tuple[str, str], LedgerEntry] = {}
    for part in parts(pte):
        label = part.label
        entry = LedgerEntry(
            label=str(label), kind=part.kind, bytes=part.at.size, group=label.merged, what=label.what
        )
        known = totals.get((entry.kind, entry.label))
        if known is not None:
            entry = replace(entry, bytes=known.bytes + entry.bytes, count=known.count + 1)
        totals[entry.kind, entry.label] = entry
    return tuple(sorted(totals.values(), key=lambda entry: (-entry.bytes, entry.kind, entry.label)))


def _is_padding(pte: PteFile, at: Extent) -> bool:
    """Whether unclaimed bytes are zeros of a size that alignment explains."""
    return at.size < _LARGEST_PADDING and not bytes(pte.data[at.offset : at.end]).strip(b"\0")


def _label(what: str, backend: str = "", place: Place | None = None) -> Label:
    return Label((Use(what, backend, place),))


def _claims(pte: PteFile) -> Iterator[Claim]:
    """Yield what is known of the file, from content to container: of equal extents the first wins."""
    yield from _merged(_contents(pte))
    yield from _shaders(pte)
    yield from _delegates(pte)
    yield from (Claim(entry.data_at, "named-data", _label(f"named data {entry.key}")) for entry in pte.named)
    length = 8 + (pte.header.length if pte.header else 0)
    yield Claim(Extent(0, min(length, pte.size)), "header", _label("header"))
    yield Claim(pte.program_at, "program", _label("program"))
    for index, segment in enumerate(pte.segments):
        yield Claim(segment, _GAP, _label(f"segment {index}, unreferenced"))
    yield Claim(Extent(0, pte.size), _GAP, _label("unreferenced"))


def _merged(contents: Iterator[tuple[Extent, Use]]) -> Iterator[Claim]:
    """Yield one claim for the same bytes, labelled by all its uses."""
    uses: dict[Extent, dict[Use, None]] = {}
    for extent, use in contents:
        uses.setdefault(extent, {})[use] = None
    yield from (Claim(extent, "constant", Label(tuple(of))) for extent, of in uses.items())


def _contents(pte: PteFile) -> Iterator[tuple[Extent, Use]]:
    """Yield each use of the bytes of every constant tensor, of the program and of its Vulkan delegates."""
    for method in pte.methods:
        for value in method.values:
            if isinstance(value, Tensor) and value.data_at is not None:
                yield value.data_at, Use(f"{method.name} {_described(value)}")
    named = _named(pte)
    for delegate in vulkan_delegates(pte).values():
        uses = constant_uses(delegate.graph)
        for index, constant in enumerate(delegate.graph.constants):
            at = _extent(constant, delegate, named)
            if at is not None:
                yield from ((at, Use(of, _VULKAN, delegate.place)) for of in uses.get(index, ("unused",)))


def _shaders(pte: PteFile) -> Iterator[Claim]:
    """Yield the shaders that Vulkan delegates carry."""
    named = _named(pte)
    for delegate in vulkan_delegates(pte).values():
        for shader in stored_shaders(delegate.graph):
            at = _extent(shader.constant, delegate, named)
            if at is not None:
                yield Claim(at, "shader", _label(f"shader {shader.label}", _VULKAN, delegate.place))


def _named(pte: PteFile) -> Mapping[str, Extent]:
    return {entry.key: entry.data_at for entry in pte.named}


def _extent(constant: Constant, delegate: VulkanDelegate, named: Mapping[str, Extent]) -> Extent | None:
    """Return where the bytes of a constant or shader stand, None where they are not in the file."""
    return constant.at.within(delegate.at) if constant.at is not None else named.get(constant.named_key)


def _described(tensor: Tensor) -> str:
    """`constant emb.weight float32[64,64]`: what is known of a program's tensor."""
    role = "constant" if tensor.allocation is None else "initial state"
    shape = shape_label(tensor.scalar_type.label, tensor.sizes)
    return " ".join(filter(None, (role, tensor.name, shape)))


def _delegates(pte: PteFile) -> Iterator[Claim]:
    """Yield the blobs of all delegates; what a Vulkan blob holds beside its parts is a gap."""
    vulkan = vulkan_delegates(pte)
    for method in pte.methods:
        for index, delegate in enumerate(method.delegates):
            place, at = Place(method.name, index), delegate.processed_at
            if place not in vulkan:
                yield Claim(at, "delegate", _label("blob", delegate.id, place))
                continue
            graph = vulkan[place].graph
            yield Claim(graph.header_at.within(at), "delegate", _label("header", _VULKAN, place))
            yield Claim(graph.flatbuffer_at.within(at), "delegate", _label("graph", _VULKAN, place))
            yield Claim(at, _GAP, _label("unreferenced", _VULKAN, place))


_MOST_READERS: Final = 32  # kinds of readers that are remembered of one value


def short_name(operator: str) -> str:
    """`et_vk.embedding_q4gsw.default` -> `embedding_q4gsw`; other overloads keep theirs."""
    _, _, name = operator.partition(".")
    return (name or operator).removesuffix(".default")


def shape_label(dtype: str, sizes: tuple[int, ...]) -> str:
    """`float32[64,2]`: an element type and a shape."""
    return f"{dtype}[{','.join(map(str, sizes))}]"


def constant_uses(graph: VulkanGraph) -> dict[int, tuple[str, ...]]:
    """Return what reads each constant (`embedding_q4gsw weight uint8[64,32]`), by constant id."""
    prepacked = _prepacked(graph)
    readers = _readers(graph)
    uses: dict[int, dict[str, None]] = {}
    for index, value in enumerate(graph.values):
        if not isinstance(value, VkTensor) or not value.constant:
            continue
        shape = shape_label(value.dtype.label, value.dims)
        names = [name for source in (index, *prepacked.get(index, ())) for name in readers.get(source, ())]
        found = uses.setdefault(value.constant_id, {})
        found.update((f"{name} {shape}", None) for name in names or ["unused"])
    return {constant: tuple(found) for constant, found in uses.items()}


def _prepacked(graph: VulkanGraph) -> dict[int, dict[int, None]]:
    """Values that are copies of a constant on the GPU, by the constant's value index."""
    copies: dict[int, dict[int, None]] = {}
    for call in graph.chain:
        if call.name == PREPACK and len(call.args) > 1:
            copies.setdefault(call.args[0], {})[call.args[1]] = None
    return copies


def _readers(graph: VulkanGraph) -> dict[int, dict[str, None]]:
    """`operator role` of each argument, by value index."""
    readers: dict[int, dict[str, None]] = {}
    for call in graph.chain:
        if call.name == PREPACK:
            continue
        for position, index in _arguments(call, graph):
            known = readers.setdefault(index, {})
            if len(known) < _MOST_READERS:
                known[f"{short_name(call.name)} {record_of(call.name).argument(position)}"] = None
    return readers


def _arguments(call: OperatorCall, graph: VulkanGraph) -> Iterator[tuple[int, int]]:
    """(position, value index) of each argument, members of lists included."""
    for position, index in enumerate(call.args):
        value = graph.values[index]
        if isinstance(value, ValueList):
            yield from ((position, member) for member in value.ids)
        else:
            yield position, index
