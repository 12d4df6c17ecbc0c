"""The only way to change a graph: an editor over a copy, which the original never sees."""

import copy
import dataclasses
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import accumulate
from typing import Any, cast

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    TensorArgument,
)

from vkfuse.program.content import content
from vkfuse.program.parts import with_parts
from vkfuse.program.tensors import fake_mode, owned
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.operands import arguments_with
from vkfuse.rewrite.traced import Traced, Tracer, untraced

aten = torch.ops.aten


class GraphEditor:
    """A copy of an exported program being rewritten, made once something is. Nodes of the original are named by themselves.

    Constants are only added; the unused die in `finish`. Equal constants are one.
    """

    def __init__(self, exported: ExportedProgram) -> None:
        self.program = exported
        self._place: fx.Node | None = None
        self._added: dict[str, torch.Tensor] = {}
        self._by_content: dict[tuple[object, ...], fx.Node] = {}
        self._sizes: dict[tuple[str, int], fx.Node] = {}
        self._cache: dict[object, Any] = {}
        self._replaced: dict[fx.Node, fx.Node] = {}
        self._outputs = list(exported.graph_signature.output_specs)
        self._strides_kept = True

    @cached_property
    def constants(self) -> Constants:
        """What the original computes from its constants alone."""
        return Constants(self.program)

    @cached_property
    def _copy(self) -> "_Copy":
        return _Copy.of(self.program)

    @property
    def graph(self) -> fx.Graph:
        """The graph of the copy."""
        return self._copy.module.graph

    def node(self, original: fx.Node) -> fx.Node:
        """The node that stands for `original` in the copy, after what has been replaced so far."""
        found: fx.Node = self._copy.nodes[original.name]
        while found in self._replaced:
            found = self._replaced[found]
        return found

    def submodule(self, original: fx.Node) -> fx.GraphModule:
        """The copy of the subgraph that a ``get_attr`` node names, to be changed in place: it is the editor's own."""
        module = self._copy.module.get_submodule(str(original.target))
        if not isinstance(module, fx.GraphModule):
            raise TypeError(f"{original.target} is no subgraph")
        return module

    @contextmanager
    def before(self, original: fx.Node) -> Iterator[None]:
        """Insert new nodes before `original`'s copy."""
        outer, self._place = self._place, original
        try:
            yield
        finally:
            self._place = outer

    def call(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """A new call at the point of insertion, with its value's shape and dtype worked out.

        Nodes of the original among the arguments stand for their copies. Of an operator without an overload, torch
        chooses one by the arguments.
        """
        if self._place is None:
            raise ValueError(f"no place for {target}")
        args, kwargs = untraced((args, kwargs))
        with self.graph.inserting_before(self._copy.nodes[self._place.name]):
            return self._call(target, *args, **kwargs)

    def again(self, node: fx.Node, **changed: Any) -> torch.Tensor:
        """The same call with other operands, by their names."""
        args, kwargs = arguments_with(node, changed)
        return self.tensor(self.call(node.target, *args, **kwargs))

    def tensor(self, node: fx.Node) -> torch.Tensor:
        """`node` as the tensor that it computes: torch's functions of it, and arithmetic, become calls here."""
        return cast("torch.Tensor", Traced(node, self._tracer))

    def stored(self, value: torch.Tensor, name: str) -> torch.Tensor:
        """A constant as a tensor to compute with."""
        return self.tensor(self.constant(value, name))

    def arange(self, size: Any) -> torch.Tensor:
        """int64 [size]: 0, 1, 2 and so on."""
        return self.tensor(self.call(aten.arange.default, size))

    @cached_property
    def _tracer(self) -> Tracer:
        return Tracer(self)

    def cast(self, source: fx.Node, dtype: torch.dtype) -> fx.Node:
        """`source` as numbers of a type, itself where it has that."""
        if source.meta["val"].dtype is dtype:
            return self._copied(source)
        return self.call(aten._to_copy.default, source, dtype=dtype)  # noqa: SLF001 - the operator's name

    def _copied(self, node: fx.Node) -> fx.Node:
        """A node of the copy: itself, or what stands for it."""
        return self.node(node) if node.graph is self.program.graph else node

    def _call(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        args, kwargs = fx.node.map_arg((args, kwargs), self._copied)
        fake_args, fake_kwargs = fx.node.map_arg((args, kwargs), lambda n: n.meta["val"])
        target = _overload(target, fake_args, fake_kwargs)
        node = self.graph.call_function(target, args, kwargs)
        with (
            enable_python_dispatcher(),
            self._copy.fake_mode,
        ):  # some of torch's own kernels make sizes numbers
            node.meta["val"] = target(*fake_args, **fake_kwargs)
        return node

    def once(self, key: object, make: Any) -> Any:
        """`make()` the first time that `key` is asked for, the same result after."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def constant(self, value: torch.Tensor, name: str) -> fx.Node:
        """A placeholder that holds `value`, a new one only where no equal constant was added before."""
        value = owned(value.detach())
        key = content(value)
        if key not in self._by_content:
            self._by_content[key] = self._placeholder_of(self._free_name(name), value)
        return self._by_content[key]

    def _placeholder_of(self, target: str, value: torch.Tensor) -> fx.Node:
        first = next(iter(self.graph.nodes))
        with self.graph.inserting_before(first):
            node = self.graph.placeholder("b_" + "".join(c if c.isalnum() else "_" for c in target))
        node.target = node.name  # which torch has made free; a placeholder's code says its target
        node.meta["val"] = self._copy.fake_mode.from_tensor(value, static_shapes=True)
        self._added[target] = value
        self._copy.specs[node.name] = InputSpec(
            kind=InputKind.BUFFER, arg=TensorArgument(name=node.name), target=target, persistent=True
        )
        return node

    def _free_name(self, name: str) -> str:
        """A name without dots, which would need a module; of no tensor and no module of the program."""
        return _free(name.replace(".", "_"), {*self._taken, *self._added})

    @cached_property
    def _taken(self) -> frozenset[str]:
        """Names of the program's tensors, and of the modules that hold them."""
        stored = (*self.program.state_dict, *self.program.constants)
        return frozenset(part for name in stored for part in accumulate(name.split("."), "{}.{}".format))

    def sizes(self, of: fx.Node | torch.Tensor) -> list[Any]:
        """The dimensions of a node of the original, ints where static, else nodes that compute them."""
        original = untraced(of)
        shape = original.meta["val"].shape
        return [s if isinstance(s, int) else self._size(original, d, s) for d, s in enumerate(shape)]

    def input_size(self, size: int | torch.SymInt) -> Any:
        """A size that can be used anywhere in the graph: itself, or a node that reads it off an input; else None."""
        if isinstance(size, int):
            return size
        found = self._input_with(size)
        return None if found is None else self._read_size(*found)

    def _size(self, original: fx.Node, dim: int, symbol: torch.SymInt) -> fx.Node:
        """A symbolic size, read off an input where one has it: then it can be used anywhere in the graph."""
        source, source_dim = self._input_with(symbol) or (self._copy.nodes[original.name], dim)
        return self._read_size(source, source_dim)

    def _read_size(self, source: fx.Node, source_dim: int) -> fx.Node:
        key = (source.name, source_dim)
        if key not in self._sizes:
            after = self._last_placeholder() if source.op == "placeholder" else source
            with self.graph.inserting_after(after):
                self._sizes[key] = self._call(aten.sym_size.int, source, source_dim)
        return self._sizes[key]

    def _input_with(self, symbol: torch.SymInt) -> tuple[fx.Node, int] | None:
        for node in self.graph.find_nodes(op="placeholder"):
            value = node.meta.get("val")
            shape: tuple[Any, ...] = value.shape if isinstance(value, torch.Tensor) else ()
            for dim, size in enumerate(shape):
                if isinstance(size, torch.SymInt) and size.node.expr == symbol.node.expr:
                    return node, dim
        return None

    def _last_placeholder(self) -> Any:
        *_, last = self.graph.find_nodes(op="placeholder")
        return last

    def replace(self, original: fx.Node, by: fx.Node | torch.Tensor) -> None:
        """Let every reader of `original` read `by`."""
        old, new = self._copy.nodes[original.name], self._copied(untraced(by))
        self._strides_kept &= _strides(old) == _strides(new)
        old.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
        self._replaced[old] = new

    def restate(self, original: fx.Node, value: torch.Tensor) -> fx.Node:
        """A placeholder for the state of the buffer `original` in another form, with first values `value`.

        It has the buffer's name; nothing may read `original` any more.
        """
        old = self.node(original).name
        spec = self._copy.specs[old]
        self._copy.specs[old] = dataclasses.replace(spec, target=None)
        return self._placeholder_of(str(spec.target), owned(value.detach()))

    def returns(self, result: fx.Node | torch.Tensor, new: fx.Node | torch.Tensor) -> None:
        """Let what `result` writes to a buffer be written by `new`; the user still gets `result`."""
        result, new = untraced((result, new))
        output = next(iter(self.graph.find_nodes(op="output")))
        output.args = (
            tuple(
                new if given is result and spec.kind is OutputKind.BUFFER_MUTATION else given
                for spec, given in zip(self._outputs, output.args[0], strict=True)
            ),
        )

    def forget(self, buffers: Collection[str]) -> None:
        """Stop writing to `buffers`."""
        output = next(iter(self.graph.find_nodes(op="output")))
        left = [
            (spec, result)
            for spec, result in zip(self._outputs, output.args[0], strict=True)
            if spec.kind is not OutputKind.BUFFER_MUTATION or spec.target not in buffers
        ]
        self._outputs = [spec for spec, _ in left]
        output.args = (tuple(result for _, result in left),)

    def erase(self, original: fx.Node) -> None:
        """Take out a node that nothing reads any more, though torch would keep it."""
        self.graph.erase_node(self._copy.nodes[original.name])

    def finish(self) -> ExportedProgram:
        """The rewritten program: dead nodes and unread constants gone, everything else under its old name."""
        self._erase_replaced()
        if not self._strides_kept:
            self._let_views_copy()
        self._tell_state_apart()
        self.graph.eliminate_dead_code()
        specs = self._live_specs()
        self.graph.lint()
        self._copy.module.recompile()
        old = self.program
        targets = {spec.target for spec in specs}
        return with_parts(
            old,
            root=self._copy.module,
            graph=self.graph,
            graph_signature=ExportGraphSignature(input_specs=specs, output_specs=self._output_specs()),
            state_dict={k: v for k, v in {**old.state_dict, **self._added}.items() if k in targets},
            constants={k: v for k, v in old.constants.items() if k in targets - self._added.keys()},
        )

    def _erase_replaced(self) -> None:
        """Operators that draw random numbers, as attention might, are no dead code to torch."""
        for node in reversed(self._replaced):
            if node.op == "call_function" and not node.users:
                self.graph.erase_node(node)

    def _let_views_copy(self) -> None:
        """Views were made for the strides that there were: a fused attention's result has other ones than a matmul's."""
        for target in (aten.view.default, aten._unsafe_view.default):  # noqa: SLF001 - the operator's name
            for node in self.graph.find_nodes(op="call_function", target=target):
                node.target = aten.reshape.default

    def _tell_state_apart(self) -> None:
        """Write copies to buffers that would get what another one gets: a signature has one buffer for a result."""
        output, seen = next(iter(self.graph.find_nodes(op="output"))), set[fx.Node]()
        results = list(output.args[0])
        for at, spec in enumerate(self._outputs):
            if spec.kind is not OutputKind.BUFFER_MUTATION:
                continue
            if results[at] in seen:
                with self.graph.inserting_before(output):
                    results[at] = self._call(aten.clone.default, results[at])
            seen.add(results[at])
        output.args = (tuple(results),)

    def _live_specs(self) -> list[InputSpec]:
        mutated = {s.target for s in self._outputs if s.kind is OutputKind.BUFFER_MUTATION}
        inputs = {InputKind.USER_INPUT, InputKind.TOKEN}
        live = []
        for node in self.graph.find_nodes(op="placeholder"):
            spec = self._copy.specs[node.name]
            if node.users or spec.kind in inputs or spec.target in mutated:
                live.append(spec)
            else:
                self.graph.erase_node(node)
        order = {kind: i for i, kind in enumerate(_INPUT_ORDER)}
        return self._in_order(sorted(live, key=lambda spec: order[spec.kind]))

    def _in_order(self, specs: list[InputSpec]) -> list[InputSpec]:
        """Move the placeholders into the order that the verifier wants: parameters, buffers, constants, inputs."""
        placeholders = {n.name: n for n in self.graph.find_nodes(op="placeholder")}
        for spec in reversed(specs):
            first = next(iter(self.graph.nodes))
            if first is not placeholders[spec.arg.name]:
                first.prepend(placeholders[spec.arg.name])
        return specs

    def _output_specs(self) -> list[Any]:
        """The old output specs with the names that the outputs have now."""
        results = next(iter(self.graph.find_nodes(op="output"))).args[0]
        renamed = []
        for spec, result in zip(self._outputs, results, strict=True):
            renamed.append(_renamed(spec, result.name) if isinstance(result, fx.Node) else spec)
        return renamed


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Copy:
    """A copied graph: its nodes by the originals' names, and what its placeholders are, by their own."""

    module: fx.GraphModule
    nodes: dict[str, fx.Node]
    specs: dict[str, InputSpec]
    fake_mode: FakeTensorMode

    @classmethod
    def of(cls, exported: ExportedProgram) -> "_Copy":
        """Copy a program's graph."""
        module = copy.deepcopy(exported.graph_module)
        copies = zip(exported.graph.nodes, module.graph.nodes, strict=True)  # a copy may get another name
        nodes = {original.name: node for original, node in copies}
        specs = {
            nodes[spec.arg.name].name: _renamed(spec, nodes[spec.arg.name].name)
            for spec in exported.graph_signature.input_specs
        }
        return cls(module=module, nodes=nodes, specs=specs, fake_mode=fake_mode(module.graph))


def _strides(node: fx.Node) -> tuple[str, ...]:
    """Strides of a tensor as expressions, which compare without a guard; none of anything else."""
    value = node.meta.get("val")
    return tuple(map(str, value.stride())) if isinstance(value, torch.Tensor) else ()


def _overload(target: Any, args: Any, kwargs: Any) -> Any:
    """The overload that torch would call, of an operator that has several."""
    if not isinstance(target, torch._ops.OpOverloadPacket):  # noqa: SLF001 - torch names the class nowhere else
        return target
    name = torch._C._jit_resolve_packet(target._qualified_op_name, *args, **kwargs)  # noqa: SLF001 - as dynamo does
    return getattr(target, name)


def _free(base: str, taken: Collection[str]) -> str:
    """`base`, with a number where it is taken."""
    return next(n for n in (base, *(f"{base}_{i}" for i in range(len(taken) + 1))) if n not in taken)


def _renamed(spec: Any, name: str) -> Any:
    """A copy of an input or output spec whose argument is called `name`."""
    return dataclasses.replace(spec, arg=dataclasses.replace(spec.arg, name=name))


_INPUT_ORDER = (
    InputKind.TOKEN,
    InputKind.PARAMETER,
    InputKind.BUFFER,
    InputKind.CONSTANT_TENSOR,
    InputKind.CUSTOM_OBJ,
    InputKind.USER_INPUT,
)
