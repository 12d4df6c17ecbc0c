"""A Vulkan graph without a lookup in it: what its rows went to gets them from outside.

The opposite of `vkfuse.patch.lookups`. What only led to the lookup goes with it: flattened indices, rows in their shape,
copies to the storage that it needs. Where rows were kept in buffers for the lookup, all that was so because of them is in
textures, unless what is made of them fits in none, as lowering has it
(backends/vulkan/_passes/tag_memory_meta_pass.py of ExecuTorch 1.5). Where that is further away than lowering looks, it
stays in buffers too, some copies more than lowering writes.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

from vkfuse.patch.graphs import pruned
from vkfuse.pte.enums import VkMemoryLayout, VkStorageType
from vkfuse.pte.vulkan import OperatorCall, ValueList, VkTensor, VulkanGraph
from vkfuse.runtime.judge import MAX_DIMENSIONS
from vkfuse.runtime.operators.lookup import PLAIN
from vkfuse.runtime.operators.moves import COPY, SLICE, VIEW
from vkfuse.runtime.packing import in_texture
from vkfuse.runtime.spelling import WIDTH

_SIZE: Final = "sym_size.int"
_MOVES: Final = {VIEW, COPY, SLICE, "aten.unsqueeze_copy.default", "aten.squeeze_copy.dims"}
_SCALED: Final = "aten.mul.Tensor"
_PURE: Final = {*_MOVES, _SIZE, PLAIN, "add", "sub", "mul", "floordiv"}  # without a name space: of sizes
_SEARCHED: Final = 64  # tensors that tag_memory_meta_pass.py looks at to place one


class UntoldError(Exception):
    """Only a lowering can tell what was before; the message says why."""


class GraphCut:
    """One graph that lookups are cut out of; `inputs` are its input values as they will be."""

    def __init__(self, graph: VulkanGraph) -> None:
        self._graph = graph
        self._values = list(graph.values)
        self._calls: dict[int, OperatorCall] = dict(enumerate(graph.chain))
        self._outputs = list(graph.output_ids)
        self.inputs = list(graph.input_ids)

    def origin(self, index: int) -> int:
        """Return the position of the input that a value is, or is moved from."""
        while index not in self.inputs:
            made = [call for call in self._calls.values() if call.args[-1] == index]
            if len(made) != 1 or made[0].name not in _MOVES:
                raise UntoldError("indices of a lookup are computed in a delegate")
            index = made[0].args[0]
        return self.inputs.index(index)

    def cut(self, number: int, at: int, columns: int) -> VkTensor:
        """Take out a lookup by what input `at` holds, and return its rows: an input in that one's place, or the last."""
        ids = self.inputs[at]
        trail = [number]
        rows = self._rows(ids, columns, trail)
        self._drop([index for each in trail for index in self._named(self._calls.pop(each).args)])
        readers = {self._calls[reader].name for reader in self._readers(ids)}
        if readers or ids in self._outputs:
            self.inputs.append(rows)
        else:
            self.inputs[at] = rows
        if readers == {_SIZE}:
            self._replace(ids, storage=VkStorageType.DEFAULT_STORAGE, layout=VkMemoryLayout.DEFAULT_LAYOUT)
        self._to_textures(rows)
        return self._tensor(rows)

    def left(self) -> tuple[int, ...]:
        """Return the positions of inputs that are read, in the order of their first reader, as lowering has them."""
        reads = (index for _, call in sorted(self._calls.items()) for index in self._named(call.args))
        order = dict.fromkeys([*reads, *self._outputs])
        return tuple(self.inputs.index(index) for index in order if index in self.inputs)

    def graph(self) -> VulkanGraph:
        """Return what is left."""
        return pruned(
            replace(
                self._graph,
                chain=tuple(call for _, call in sorted(self._calls.items())),
                values=tuple(self._values),
                input_ids=tuple(self.inputs[at] for at in self.left()),
                output_ids=tuple(self._outputs),
            )
        )

    def _tensor(self, index: int) -> VkTensor:
        value = self._values[index]
        if not isinstance(value, VkTensor):
            raise UntoldError("a lookup has to do with values that are no tensors")
        return value

    def _replace(self, index: int, **changes: Any) -> None:
        self._values[index] = replace(self._tensor(index), **changes)

    def _rows(self, ids: int, columns: int, trail: list[int]) -> int:
        """Return the tensor of rows in the shape of the indices, past copies to another storage; `trail` leads there."""
        wanted = (*self._tensor(ids).dims, columns)
        index = self._calls[trail[0]].args[-1]
        while index not in self._outputs:
            readers = [*self._readers(index)]
            following = self._calls[readers[0]] if len(readers) == 1 else None
            if self._tensor(index).dims == wanted:
                if following is None or not self._moves_storage(following):
                    return index
            elif following is None or not (following.name in _MOVES or self._is_scaled(following)):
                return self._viewed(index, wanted, trail)
            trail.append(readers[0])
            index = following.args[-1]
        raise UntoldError("rows of a lookup leave the delegate as they are")

    def _viewed(self, index: int, wanted: tuple[int, ...], trail: list[int]) -> int:
        """Return what is viewed on the way back along the trail, which then ends there, in the shape of the indices.

        Lowering makes one view of views that follow each other, and so left none in that shape.
        """
        while {self._calls[reader].name for reader in self._readers(index)} != {VIEW}:
            back = self._calls[trail.pop()]
            if not trail or back.name not in {VIEW, COPY}:
                raise UntoldError("rows of a lookup are read in another shape than a lookup's")
            index = back.args[0]
        self._replace(index, dims=wanted)
        if len(wanted) > MAX_DIMENSIONS or not (_in_buffer(self._values[index]) or self._fits(index)):
            raise UntoldError("rows of a lookup fit in no texture in the shape of its indices")
        return index

    def _is_scaled(self, call: OperatorCall) -> bool:
        """Whether a call multiplies rows by scales that are looked up themselves."""
        if call.name != _SCALED:
            return False
        made = {made.args[-1]: made for made in self._calls.values()}
        scales = made.get(call.args[1])
        while scales is not None and scales.name in _MOVES:
            scales = made.get(scales.args[0])
        return scales is not None and scales.name == PLAIN

    def _moves_storage(self, call: OperatorCall) -> bool:
        """Whether a call copies a tensor from a buffer to a texture, or back."""
        if call.name != COPY:
            return False
        return self._tensor(call.args[0]).storage is not self._tensor(call.args[-1]).storage

    def _readers(self, index: int) -> Iterator[int]:
        yield from (at for at, call in self._calls.items() if index in self._named(call.args[:-1]))

    def _named(self, args: Iterable[int]) -> Iterator[int]:
        """Yield the values that arguments are, and those of lists among them."""
        for index in args:
            yield index
            value = self._values[index]
            if isinstance(value, ValueList):
                yield from value.ids

    def _drop(self, pending: list[int]) -> None:
        """Take out calls that only made what nothing reads any more."""
        while pending:
            index = pending.pop()
            if index in self._outputs or any(True for _ in self._readers(index)):
                continue
            for at in [at for at, call in self._calls.items() if call.args[-1] == index]:
                if self._calls[at].name in _PURE:
                    pending += self._named(self._calls.pop(at).args)

    def _to_textures(self, rows: int) -> None:
        """Move to textures what is in buffers because the rows are, unless they lead to what fits in none."""
        if self._is_for_buffers(rows):
            return
        region = self._region(rows)
        if not all(self._fits(index) for index in region):
            return
        copies = [
            at
            for at, call in self._calls.items()
            if self._moves_storage(call) and not region.isdisjoint((call.args[0], call.args[-1]))
        ]
        for index in region:
            self._replace(index, storage=VkStorageType.TEXTURE_3D)
        for at in copies:
            self._joined(self._calls.pop(at))

    def _is_for_buffers(self, rows: int) -> bool:
        """Whether lowering, which looks at what is made of a tensor, finds one that fits in no texture, and no copy."""
        frontier = deque([rows])
        for _ in range(_SEARCHED):
            if not frontier:
                return False
            index = frontier.popleft()
            if not self._fits(index):
                return _in_buffer(self._values[index])
            readers = [self._calls[at] for at in self._readers(index)]
            if any(self._moves_storage(call) for call in readers):
                return False
            made = self._named(call.args[-1] for call in readers if call.args[0] == index)
            frontier += [each for each in made if isinstance(self._values[each], VkTensor)]
        return False

    def _fits(self, index: int) -> bool:
        """Whether a texture holds a tensor, four of the last dimension to a texel."""
        tensor = self._tensor(index)
        return tensor.layout is WIDTH and len(tensor.dims) <= MAX_DIMENSIONS and in_texture(tensor.dims)

    def _region(self, rows: int) -> set[int]:
        """Return the tensors in buffers that calls have to do with together, from the rows on."""
        region: set[int] = set()
        frontier = [rows]
        while frontier:
            index = frontier.pop()
            if index in region or not _in_buffer(self._values[index]):
                continue
            region.add(index)
            for call in self._calls.values():
                named = {*self._named(call.args)}
                if index in named and not self._moves_storage(call):
                    frontier += named
        return region

    def _joined(self, copy: OperatorCall) -> None:
        """Let what reads a copy read what was copied."""
        source, target = copy.args[0], copy.args[-1]

        def instead(ids: Iterable[int]) -> tuple[int, ...]:
            return tuple(source if index == target else index for index in ids)

        self._outputs[:] = instead(self._outputs)
        for at, call in self._calls.items():
            self._calls[at] = replace(call, args=instead(call.args))
        for index, value in enumerate(self._values):
            if isinstance(value, ValueList):
                self._values[index] = ValueList(instead(value.ids))


def _in_buffer(value: object) -> bool:
    return isinstance(value, VkTensor) and not value.constant and value.storage is VkStorageType.BUFFER
