"""Every byte of a .pte under a label; the labels sum to the file's size."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from vkfuse.measure.claims import Claim, divide
from vkfuse.measure.shaders import stored_shaders
from vkfuse.measure.uses import constant_uses, shape_label
from vkfuse.pte.findings import LedgerEntry, LedgerKind
from vkfuse.pte.model import PteFile, Tensor
from vkfuse.pte.values import Extent
from vkfuse.pte.vulkan import Constant, Graphs, VulkanGraph, vulkan_graphs

_NAMED_USERS: Final = 3  # users that a label spells out
_LARGEST_PADDING: Final = 1 << 16  # segments are aligned to at most 64 KiB
_GAP: Final = "unreferenced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes of a file that have one label; `order` grows as the file's methods and delegates name them."""

    at: Extent
    kind: LedgerKind
    label: str
    order: int


def parts(pte: PteFile) -> Iterator[Part]:
    """Yield all bytes in file order, each once. FormatError where a Vulkan blob is malformed."""
    claims = [*_claims(pte, vulkan_graphs(pte))]
    order = {id(claim): number for number, claim in enumerate(claims)}
    for piece in divide(claims):
        claim = piece.claim
        gap = claim.kind == _GAP and _is_padding(pte, piece.at)
        yield Part(
            at=piece.at,
            kind="padding" if gap else claim.kind,
            label="padding" if gap else claim.label,
            order=order[id(claim)],
        )


def ledger(pte: PteFile) -> tuple[LedgerEntry, ...]:
    """Return the labels of all bytes, the largest first. FormatError where a Vulkan blob is malformed."""
    totals: dict[tuple[str, str], LedgerEntry] = {}
    for part in parts(pte):
        entry = LedgerEntry(label=part.label, kind=part.kind, bytes=part.at.size)
        known = totals.get((entry.kind, entry.label))
        if known is not None:
            entry = replace(entry, bytes=known.bytes + entry.bytes, count=known.count + 1)
        totals[entry.kind, entry.label] = entry
    return tuple(sorted(totals.values(), key=lambda entry: (-entry.bytes, entry.kind, entry.label)))


def _is_padding(pte: PteFile, at: Extent) -> bool:
    """Whether unclaimed bytes are zeros of a size that alignment explains."""
    return at.size < _LARGEST_PADDING and not bytes(pte.data[at.offset : at.end]).strip(b"\0")


def _claims(pte: PteFile, graphs: Graphs) -> Iterator[Claim]:
    """Yield what is known of the file, from content to container: of equal extents the first wins."""
    yield from _merged(_contents(pte, graphs))
    yield from _shaders(pte, graphs)
    yield from _delegates(pte, graphs)
    yield from (Claim(entry.data_at, "named-data", f"named data {entry.key}") for entry in pte.named)
    length = 8 + (pte.header.length if pte.header else 0)
    yield Claim(Extent(0, min(length, pte.size)), "header", "header")
    yield Claim(pte.program_at, "program", "program")
    for index, segment in enumerate(pte.segments):
        yield Claim(segment, _GAP, f"segment {index}, unreferenced")
    yield Claim(Extent(0, pte.size), _GAP, "unreferenced")


def _merged(contents: Iterator[tuple[Extent, str]]) -> Iterator[Claim]:
    """Yield one claim for the same bytes, labelled by all its users."""
    users: dict[Extent, dict[str, None]] = {}
    for extent, user in contents:
        users.setdefault(extent, {})[user] = None
    yield from (Claim(extent, "constant", _joined(tuple(names))) for extent, names in users.items())


def _joined(names: tuple[str, ...]) -> str:
    """Return one label for bytes that several users share."""
    if len(names) == 1:
        return names[0]
    more = len(names) - _NAMED_USERS
    shown = names[:_NAMED_USERS] if more > 0 else names
    return "shared: " + " + ".join(shown) + (f" + {more} more" if more > 0 else "")


def _contents(pte: PteFile, graphs: Graphs) -> Iterator[tuple[Extent, str]]:
    """Yield (bytes, user) of every constant tensor, of the program and of its Vulkan delegates."""
    for method in pte.methods:
        for value in method.values:
            if isinstance(value, Tensor) and value.data_at is not None:
                yield value.data_at, f"{method.name} {_described(value)}"
    named = {entry.key: entry.data_at for entry in pte.named}
    for (method_name, index), graph in graphs.items():
        blob = _processed_at(pte, method_name, index)
        yield from _vulkan_contents(graph, blob, named, f"vulkan:{method_name}/{index}")


def _shaders(pte: PteFile, graphs: Graphs) -> Iterator[Claim]:
    """Yield the shaders that Vulkan delegates carry."""
    named = {entry.key: entry.data_at for entry in pte.named}
    for (method_name, index), graph in graphs.items():
        blob = _processed_at(pte, method_name, index)
        for shader in stored_shaders(graph):
            at = _place(shader.constant, blob, named)
            if at is not None:
                yield Claim(at, "shader", f"vulkan:{method_name}/{index} shader {shader.label}")


def _place(constant: Constant, blob: Extent, named: dict[str, Extent]) -> Extent | None:
    """Return where the bytes of a constant or shader stand, None where they are not in the file."""
    return constant.at.within(blob) if constant.at is not None else named.get(constant.named_key)


def _described(tensor: Tensor) -> str:
    """`constant emb.weight float32[64,64]`: what is known of a program's tensor."""
    role = "constant" if tensor.allocation is None else "initial state"
    shape = shape_label(tensor.scalar_type.label, tensor.sizes)
    return " ".join(filter(None, (role, tensor.name, shape)))


def _vulkan_contents(
    graph: VulkanGraph, blob: Extent, named: dict[str, Extent], where: str
) -> Iterator[tuple[Extent, str]]:
    """Yield (bytes, user) of a graph's constants, inline and named."""
    uses = constant_uses(graph)
    for index, constant in enumerate(graph.constants):
        at = _place(constant, blob, named)
        if at is not None:
            yield from ((at, f"{where} {use}") for use in uses.get(index, ("unused",)))


def _processed_at(pte: PteFile, method_name: str, index: int) -> Extent:
    """Return the bytes of a delegate."""
    method = next(method for method in pte.methods if method.name == method_name)
    return method.delegates[index].processed_at


def _delegates(pte: PteFile, graphs: Graphs) -> Iterator[Claim]:
    """Yield the blobs of all delegates; what a Vulkan blob holds beside its parts is a gap."""
    for method in pte.methods:
        for index, delegate in enumerate(method.delegates):
            where, at = f"{method.name}/{index}", delegate.processed_at
            graph = graphs.get((method.name, index))
            if graph is None:
                yield Claim(at, "delegate", f"{delegate.id}:{where} blob")
                continue
            yield Claim(graph.header_at.within(at), "delegate", f"vulkan:{where} header")
            yield Claim(graph.flatbuffer_at.within(at), "delegate", f"vulkan:{where} graph")
            yield Claim(at, _GAP, f"vulkan:{where} unreferenced")
