"""A program of bfloat16 or float16 arithmetic as one of float32, its inputs and outputs what they were."""

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind, OutputKind

from vkfuse.errors import LoweringError
from vkfuse.program.parts import with_parts
from vkfuse.program.tensors import fake_mode

aten = torch.ops.aten

HALVES: Final = frozenset({torch.bfloat16, torch.float16})


def halves(exported: ExportedProgram) -> frozenset[torch.dtype]:
    """The half-precision types that a program computes in or stores."""
    values = (node.meta.get("val") for node in exported.graph.nodes)
    return frozenset(value.dtype for value in values if isinstance(value, torch.Tensor)) & HALVES


def in_float32(exported: ExportedProgram) -> ExportedProgram:
    """The program with every half-precision tensor in float32, stored ones too; inputs and outputs keep their types.

    Raises LoweringError for graphs within it, and for bits that are read as another type.
    """
    if not halves(exported):
        return exported
    module = copy.deepcopy(exported.graph_module)
    wide = _Widened(module, exported)
    wide.rewrite()
    module.graph.lint()
    module.recompile()
    return with_parts(
        exported,
        root=module,
        graph=module.graph,
        graph_signature=wide.signature(),
        state_dict=_stored(exported.state_dict, {}),
        constants=_stored(exported.constants, {}),
    )


class _Widened:
    """The rewrite of one graph, a copy."""

    def __init__(self, module: fx.GraphModule, exported: ExportedProgram) -> None:
        self._graph, self._exported = module.graph, exported
        self._mode = fake_mode(module.graph)
        inputs = (s for s in exported.graph_signature.input_specs if s.kind is InputKind.USER_INPUT)
        given = {s.arg.name for s in inputs}
        originals = zip(exported.graph.nodes, module.graph.nodes, strict=True)
        self._given = {node for original, node in originals if original.name in given}

    def rewrite(self) -> None:
        """Widen each node in order, then what is returned."""
        output = next(iter(self._graph.find_nodes(op="output")))
        kinds = [_dtype(result) for result in output.args[0]]
        nodes = list(self._graph.nodes)
        last = [node for node in nodes if node.op == "placeholder"][-1]
        for node in nodes:
            if node.op == "placeholder":
                self._placeholder(node, last)
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "get_attr":
                raise LoweringError(
                    f"{node.name}: a graph within the program", hint="leave --compute float32 out"
                )
        self._return(output, kinds)

    def signature(self) -> ExportGraphSignature:
        """The program's signature with the names that its inputs and outputs have now: a copy may get another name."""
        old = self._exported.graph_signature
        inputs, (output,) = (self._graph.find_nodes(op=op) for op in ("placeholder", "output"))
        return ExportGraphSignature(
            input_specs=_renamed(old.input_specs, inputs),
            output_specs=_renamed(old.output_specs, output.args[0]),
        )

    def _placeholder(self, node: fx.Node, last: fx.Node) -> None:
        if _dtype(node) not in HALVES:
            return
        if node in self._given:
            with self._graph.inserting_after(last):
                self._cast(node, torch.float32)
        else:
            with self._mode:
                node.meta["val"] = node.meta["val"].to(torch.float32)

    def _call(self, node: fx.Node) -> None:
        if node.target == aten.view.dtype and any(_is_float(n) for n in (node, node.args[0])):
            raise LoweringError(
                f"{node.name}: bits of floats are read as another type", hint="leave --compute float32 out"
            )
        node.args, node.kwargs = _in_float32(node.args), _in_float32(node.kwargs)
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
        if _dtypes(node) & HALVES or any(isinstance(a, torch.Tensor) for a in (*args, *kwargs.values())):
            with enable_python_dispatcher(), self._mode:
                node.meta["val"] = node.target(*args, **kwargs)  # type: ignore[operator]

    def _return(self, output: fx.Node, kinds: list[torch.dtype | None]) -> None:
        """Give the user's outputs their types back; buffers keep float32."""
        results = list(output.args[0])  # type: ignore[arg-type]
        specs = self._exported.graph_signature.output_specs
        for at, (spec, kind) in enumerate(zip(specs, kinds, strict=True)):
            if spec.kind is OutputKind.USER_OUTPUT and kind in HALVES and _dtype(results[at]) != kind:
                with self._graph.inserting_before(output):
                    results[at] = self._cast(results[at], kind, replace=False)
        output.args = (tuple(results),)

    def _cast(self, node: fx.Node, kind: torch.dtype | None, *, replace: bool = True) -> fx.Node:
        cast = self._graph.call_function(aten._to_copy.default, (node,), {"dtype": kind})  # noqa: SLF001 - the operator's name
        with self._mode:
            cast.meta["val"] = node.meta["val"].to(kind)
        if replace:
            node.replace_all_uses_with(cast, delete_user_cb=lambda user: user is not cast)
        return cast


def _renamed(specs: Iterable[Any], nodes: Iterable[Any]) -> list[Any]:
    """Copies of specs whose arguments are called as `nodes` are."""
    return [
        dataclasses.replace(spec, arg=dataclasses.replace(spec.arg, name=node.name))
        if isinstance(node, fx.Node)
        else spec
        for spec, node in zip(specs, nodes, strict=True)
    ]


def _in_float32(arguments: Any) -> Any:
    """Arguments with float32 where they name a half-precision type."""
    if isinstance(arguments, (tuple, list)):
        return type(arguments)(_in_float32(argument) for argument in arguments)
    if isinstance(arguments, Mapping):
        return {name: _in_float32(argument) for name, argument in arguments.items()}
    return torch.float32 if isinstance(arguments, torch.dtype) and arguments in HALVES else arguments


def _dtype(node: Any) -> torch.dtype | None:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.dtype if isinstance(value, torch.Tensor) else None


def _is_float(node: Any) -> bool:
    kind = _dtype(node)
    return kind is not None and kind.is_floating_point


def _dtypes(node: fx.Node) -> set[torch.dtype]:
    value = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else (value,)
    return {member.dtype for member in values if isinstance(member, torch.Tensor)}


def _stored(tensors: Mapping[str, Any], made: dict[int, Any]) -> dict[str, Any]:
    """Stored tensors in float32; what is one tensor stays one."""
    return {name: made.setdefault(id(value), _wide(value)) for name, value in tensors.items()}


def _wide(value: Any) -> Any:
    if not isinstance(value, torch.Tensor) or value.dtype not in HALVES:
        return value
    wide = value.detach().to(torch.float32)
    return torch.nn.Parameter(wide, requires_grad=False) if isinstance(value, torch.nn.Parameter) else wide
