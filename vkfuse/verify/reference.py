"""The original program, run eagerly node by node, also with the runtime's arithmetic in place of torch's."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import starmap
from typing import Any, Final

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from vkfuse.errors import InputError, VkfuseError
from vkfuse.program.kernels import silenced_kernels
from vkfuse.program.parts import constants_of
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.operands import draws
from vkfuse.verify.compare import coarsest
from vkfuse.verify.errors import NoInputsError, first_line
from vkfuse.verify.program_in_step import (
    Course,
    in_order,
    last_uses,
    of_type,
    user_nodes,
    written_by,
)
from vkfuse.verify.rowwise import RowTable, made, whole
from vkfuse.verify.steps import Argument
from vkfuse.verify.vulkan.linear import nudged_qparams

_GENTLE_NOISE: Final = 1e-6  # of an activation, as another order of summation makes
_HALF_NOISE: Final = 2.0**-10  # a half's rounding of an operand, and of what is made of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """Which of the runtime's deviations the reference takes over; `noise` is added before 8-bit rounding.

    `rounded`: the program rounds what it computes, so that a tiny difference may become a step. `half`: the noise is
    that of half precision, before each jump, of what half precision does not hold as it is.
    """

    dynamic_rows: bool = False
    gelu_tanh: bool = False
    rounded: bool = False
    noise: float = 0.0
    seed: int = 0
    half: bool = False

    @property
    def eager(self) -> bool:
        """Whether it is torch's own arithmetic."""
        return not (self.dynamic_rows or self.gelu_tanh or self.rounded or self.noise)

    @property
    def steps(self) -> bool:
        """Whether activations are rounded, by the runtime or by the program."""
        return self.dynamic_rows or self.rounded


EAGER: Final = Arithmetic()
NodeObserver = Callable[[fx.Node, Any], None]


class Reference:
    """An exported program as the thing to compare with; mutable buffers keep their values until `reset`."""

    def __init__(self, exported: ExportedProgram) -> None:
        self.exported = exported
        self._module = exported.graph_module
        self._fixed = _fixed_inputs(exported)
        self._states: dict[Arithmetic, dict[str, Argument]] = {}
        self._outputs = [str(name) for name in exported.graph_signature.user_outputs]
        self._unread = _unread(exported)
        *nodes, end = exported.graph.nodes
        self._results: Sequence[Any] = end.args[0]
        self._course = Course(
            order=[(node,) for node in nodes],
            ended=last_uses(nodes, end.all_input_nodes),
            shared=_shared(exported),
        )
        values = {node.name: node.meta.get("val") for node in exported.graph.nodes}
        self.draws = tuple(node.name for node in exported.graph.nodes if draws(node))
        self.coarsest = coarsest(exported)
        calls = [(str(node.target), node.args, node.kwargs) for node in exported.graph.nodes]
        self.rounds = any(name in _ROUNDINGS for name, *_ in calls)
        self.jumps = any(starmap(_jumps, calls))
        buffers = exported.graph_signature.inputs_to_buffers
        self._kinds = {target: getattr(values[name], "dtype", None) for name, target in buffers.items()}
        self._dimensions = {n: v.dim() for n, v in values.items() if isinstance(v, torch.Tensor)}

    def reset(self, arithmetic: Arithmetic | None = None) -> None:
        """Set the buffers to what the program says, of one arithmetic or of all."""
        if arithmetic is None:
            self._states = {}
        else:
            self._states.pop(arithmetic, None)

    def __call__(
        self,
        inputs: tuple[Argument, ...],
        observe: NodeObserver | None = None,
        arithmetic: Arithmetic = EAGER,
    ) -> tuple[Any, ...]:
        """Run on the flat user inputs; return the flat user outputs. NoInputsError where the program does not take them."""
        return tuple(map(made, self.each(inputs, (arithmetic,), observe)[0]))

    def each(
        self,
        inputs: tuple[Argument, ...],
        arithmetics: Sequence[Arithmetic],
        observe: NodeObserver | None = None,
    ) -> list[tuple[Any, ...]]:
        """Run on the same inputs in several arithmetics at once, each with the buffers that its own calls left.

        What depends on no input is computed once. Large products by a table that are outputs, logits of many rows, are
        left to `rowwise.made`. NoInputsError as above.
        """
        states = [self._states.get(arithmetic, {}) for arithmetic in arithmetics]
        course = replace(
            self._course,
            given=self._given([[*self._placeholders(inputs, state)] for state in states]),
            heirs=[()] * len(arithmetics),
            left=frozenset() if observe else self._unread,
            observe=observe,
        )
        try:
            results = self._run(course, [_Runner(self._module, each) for each in arithmetics], self._results)
        except VkfuseError:
            raise
        except Exception as error:  # torch's operators raise anything
            raise NoInputsError(
                f"the program itself fails on these inputs: {first_line(error)}",
                hint="give others with --inputs; an index must be within its table",
            ) from error
        found = [tuple(self._user_outputs(*pair)) for pair in zip(results, arithmetics, strict=True)]
        for outputs in found:
            self._check_dimensions(outputs)
        return found

    def _run(self, course: Course, runners: Sequence["_Runner"], wanted: Sequence[Any]) -> list[list[Any]]:
        """Return what is `wanted` of each runner: values of nodes, and numbers as they are."""
        with torch.no_grad():
            course.run(runners)
        return [[runner.env[of] if isinstance(of, fx.Node) else of for of in wanted] for runner in runners]

    def _given(self, placeholders: Sequence[Sequence[Argument]]) -> dict[fx.Node, tuple[Argument, ...]]:
        """Values of placeholders, by the node for each runner, of those by runner."""
        nodes = self.exported.graph.find_nodes(op="placeholder")
        return dict(zip(nodes, zip(*placeholders, strict=True), strict=True))

    def in_step(
        self,
        calls: Sequence[tuple[Argument, ...]],
        before: Sequence[int | None],
        arithmetics: Sequence[Arithmetic],
    ) -> list[tuple[tuple[Any, ...], ...]]:
        """Run several calls, each in several arithmetics, in step: what `each` returns, by call.

        Call i goes on from what call `before[i]`, an earlier one, leaves, or begins after a reset; the buffers here stay.
        Raises NotInStepError where a buffer is read by what writes it, and what torch's operators do.
        """
        written = written_by(self.exported) if any(each is not None for each in before) else {}
        lanes = [(at, arithmetic) for at in range(len(calls)) for arithmetic in arithmetics]
        heirs: list[list[_Runner]] = [[] for _ in lanes]
        runners = [_Runner(self._module, arithmetic) for _, arithmetic in lanes]
        for (at, arithmetic), runner in zip(lanes, runners, strict=True):
            earlier = before[at]
            if earlier is not None:
                heirs[lanes.index((earlier, arithmetic))].append(runner)
        order, wanted = in_order(self.exported, written), user_nodes(self.exported)
        course = replace(
            self._course,
            order=order,
            given=self._given([[*self._placeholders(calls[at], {})] for at, _ in lanes]),
            heirs=heirs,
            written=written,
            ended=last_uses((node for group in order for node in group), wanted),
        )
        width, outputs = len(arithmetics), [*map(tuple, self._run(course, runners, wanted))]
        for each in outputs:
            self._check_dimensions(each)
        return [tuple(outputs[at : at + width]) for at in range(0, len(outputs), width)]

    def _check_dimensions(self, outputs: tuple[Any, ...]) -> None:
        """See that each output has the dimensions that the program was exported with: a squeeze may drop a length of 1."""
        for position, (name, value) in enumerate(zip(self._outputs, outputs, strict=True)):
            known = self._dimensions.get(name)
            if known is not None and isinstance(value, torch.Tensor) and value.dim() != known:
                raise NoInputsError(
                    f"on these inputs output {position} has {value.dim()} dimensions, {known} in the program"
                )

    def _placeholders(
        self, inputs: tuple[Argument, ...], state: Mapping[str, Argument]
    ) -> Iterator[Argument]:
        """Yield a value for each placeholder, in the order of the graph; `state` has what calls left in buffers."""
        remaining = iter(inputs)
        for spec in self.exported.graph_signature.input_specs:
            if spec.kind is InputKind.USER_INPUT:
                yield _next(remaining)
            elif spec.target in state:
                yield state[spec.target]
            else:
                yield _copied(self._fixed[spec.arg.name])
        if next(remaining, None) is not None:
            raise InputError("more inputs than the program takes")

    def _user_outputs(self, results: Any, arithmetic: Arithmetic) -> Iterator[Any]:
        """Yield user outputs, and keep what the program writes to its buffers."""
        state = self._states.setdefault(arithmetic, {})
        for spec, value in zip(self.exported.graph_signature.output_specs, results, strict=True):
            if spec.kind is OutputKind.USER_OUTPUT:
                yield value
            elif spec.kind is OutputKind.BUFFER_MUTATION and spec.target is not None:
                state[spec.target] = of_type(value, self._kinds.get(spec.target))


def flat_inputs(
    exported: ExportedProgram, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Argument, ...]:
    """Flatten arguments as the program's inputs. InputError where their structure is not the program's."""
    leaves, spec = torch.utils._pytree.tree_flatten((args, kwargs))  # noqa: SLF001 - torch.export's own structure
    expected = exported.call_spec.in_spec
    if expected is not None and spec != expected:
        ordered = {name: kwargs[name] for name in _keyword_order(expected) if name in kwargs}
        leaves, spec = torch.utils._pytree.tree_flatten((args, ordered))  # noqa: SLF001
    if expected is not None and len(leaves) != expected.num_leaves:
        raise InputError(f"{len(leaves)} inputs for a program that takes {expected.num_leaves}")
    return tuple(leaves)


def _keyword_order(spec: Any) -> list[str]:
    children = spec.children()
    return list(children[1].context) if len(children) > 1 and isinstance(children[1].context, list) else []


def _fixed_inputs(exported: ExportedProgram) -> dict[str, Argument]:
    """Values of the placeholders that are no inputs, by name."""
    fixed: dict[str, Argument] = dict(constants_of(exported))
    for spec in exported.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT and spec.arg.name not in fixed and spec.target is not None:
            fixed[spec.arg.name] = exported.constants.get(spec.target)
    return fixed


def _next(values: Iterator[Argument]) -> Argument:
    try:
        return next(values)
    except StopIteration:
        raise InputError("fewer inputs than the program takes") from None


def _copied(value: Argument) -> Argument:
    """Return constants as they are: the graph is functional and writes to none."""
    return value.detach() if isinstance(value, torch.Tensor) else value


def _shared(exported: ExportedProgram) -> frozenset[fx.Node]:
    """What is the same in any arithmetic and of any inputs."""
    constants, shared = Constants(exported), set[fx.Node]()
    for node in exported.graph.nodes:
        own = str(node.target) in _SUBSTITUTES.keys() - {_DEQUANTIZE}  # which is torch's own of integers
        if node in constants and not own and shared.issuperset(node.all_input_nodes):
            shared.add(node)
    return frozenset(shared)


def _unread(exported: ExportedProgram) -> frozenset[fx.Node]:
    """What only the caller reads."""
    (end,) = exported.graph.find_nodes(op="output")
    specs = zip(exported.graph_signature.output_specs, end.args[0], strict=True)
    own = {node for spec, node in specs if spec.kind is not OutputKind.USER_OUTPUT}
    return frozenset(node for node in end.all_input_nodes if {*node.users} == {end} and node not in own)


class _Runner(fx.Interpreter):
    """Runs nodes; large tables are dequantized by rows, the runtime's arithmetic may replace torch's."""

    def __init__(self, module: fx.GraphModule, arithmetic: Arithmetic) -> None:
        super().__init__(module, garbage_collect_values=False)
        self._arithmetic = arithmetic
        self._generator = torch.Generator().manual_seed(arithmetic.seed)

    def run_node(self, n: fx.Node) -> Any:
        """Run a node; what torch would note of it for a trace, nobody reads."""
        return getattr(self, n.op)(n.target, *self.fetch_args_kwargs_from_env(n))

    def put(self, node: fx.Node, result: Any, ended: Sequence[fx.Node]) -> None:
        """Keep a node's result, and forget what is read no more."""
        self.env[node] = result
        for read in ended:
            del self.env[read]

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator, or what stands in for it."""
        target = _IN_ORDER.get(target, target)
        name = str(target)
        if self._arithmetic.noise and (
            name in _ROUNDINGS or (self._arithmetic.half and _jumps(name, args, kwargs))
        ):
            args = (self._noisy(args[0]), *args[1:])
        substitute = _SUBSTITUTES.get(name)
        if substitute is not None and not self._arithmetic.eager:
            result = substitute(self, *args, **kwargs)
            if result is not NotImplemented:
                return result
        lazy = RowTable.call(name, args, kwargs)
        if lazy is not NotImplemented:
            return lazy
        args, kwargs = fx.node.map_aggregate((args, kwargs), whole)
        with silenced_kernels() if name.startswith("llama.") else contextlib.nullcontext():
            return super().call_function(target, args, kwargs)

    def _noisy(self, x: torch.Tensor) -> torch.Tensor:
        """Return x with relative noise; in half, what half precision holds is taken for exact, as whole numbers are."""
        if not x.is_floating_point():
            return x
        noise = torch.randn(x.shape, generator=self._generator, dtype=torch.float32)
        if self._arithmetic.half:
            noise = noise.sign() * (x != x.half())
        return (x.float() * (1 + self._arithmetic.noise * noise)).to(x.dtype)

    def gelu(self, x: torch.Tensor, approximate: str = "none") -> Any:
        """Return gelu by tanh."""
        del approximate
        return (
            torch.nn.functional.gelu(x, approximate="tanh") if self._arithmetic.gelu_tanh else NotImplemented
        )

    def qparams(self, x: torch.Tensor, mapping: str, block: list[int], *rest: Any, **named: Any) -> Any:
        """Return parameters of rows by the runtime's formula."""
        del rest, named
        fused = self._arithmetic.dynamic_rows and mapping == "ASYMMETRIC"
        if not fused or list(block) != [1] * (x.dim() - 1) + [x.shape[-1]]:
            return NotImplemented
        x = x.float()
        scale, zero = nudged_qparams(x.amin(-1), x.amax(-1), -128, 127)
        return scale, zero.to(torch.int8)

    def quantize(self, x: torch.Tensor, *rest: Any, **named: Any) -> Any:
        """Return quantized activations; a single row stays as it is."""
        del rest, named
        one = self._arithmetic.dynamic_rows and x.is_floating_point() and math.prod(x.shape[:-1]) == 1
        return _Unquantized(x) if one else NotImplemented

    def dequantize(self, x: Any, *rest: Any, **named: Any) -> Any:
        """Return what was never quantized."""
        del self, rest, named
        return x.value if isinstance(x, _Unquantized) else NotImplemented


@dataclass(frozen=True, slots=True)
class _Unquantized:
    """A row that the runtime does not quantize."""

    value: torch.Tensor


_DEQUANTIZE: Final = "torchao.dequantize_affine.default"
_SUBSTITUTES: Final[dict[str, Callable[..., Any]]] = {
    "aten.gelu.default": _Runner.gelu,
    "torchao.choose_qparams_affine.default": _Runner.qparams,
    "torchao.quantize_affine.default": _Runner.quantize,
    _DEQUANTIZE: _Runner.dequantize,
}


_ROUNDINGS: Final = frozenset(
    {
        "aten.round.default",
        "quantized_decomposed.choose_qparams.tensor",
        "quantized_decomposed.choose_qparams_per_token_asymmetric.default",
        "quantized_decomposed.quantize_per_tensor.default",
        "quantized_decomposed.quantize_per_tensor.tensor",
        "quantized_decomposed.quantize_per_token.default",
        "torchao.choose_qparams_affine.default",
        "torchao.quantize_affine.default",
    }
)


# All whose results leap, by their first operand. Equality is none: what is next to equal is not known from what is not.
_JUMPS: Final = _ROUNDINGS | frozenset(
    {
        *("aten.floor.default", "aten.ceil.default", "aten.trunc.default", "aten.sign.default"),
        *(f"aten.{order}.{kind}" for order in ("lt", "le", "gt", "ge") for kind in ("Tensor", "Scalar")),
        *("aten.div.Tensor_mode", "aten.div.Scalar_mode", "aten.floor_divide.default"),
        *("aten.hardshrink.default", "aten.threshold.default"),
    }
)


_CASTS: Final = frozenset({"aten._to_copy.default", "aten.to.dtype"})


def _jumps(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operator's result leaps by its first operand, which one that makes integers does."""
    kinds = {each for each in (*args, *kwargs.values()) if isinstance(each, torch.dtype)}
    return name in _JUMPS or (
        name in _CASTS and any(not kind.is_floating_point and kind is not torch.bool for kind in kinds)
    )


def _sorted(x: torch.Tensor, dim: int = -1, descending: bool = False) -> Any:
    return torch.sort(x, dim=dim, descending=descending, stable=True)


# A sort that need not be stable may return equal values in any order, torch's in another one than the file's.
_IN_ORDER: Final[dict[Any, Callable[..., Any]]] = {torch.ops.aten.sort.default: _sorted}


def noisy_half(arithmetic: Arithmetic, seed: int) -> Arithmetic:
    """Return the same arithmetic with the noise of half precision before each jump."""
    return replace(arithmetic, noise=_HALF_NOISE, half=True, seed=seed)


def noisy_runtime(arithmetic: Arithmetic, seed: int) -> Arithmetic:
    """Return the same arithmetic with gentle noise before each rounding of activations."""
    return replace(arithmetic, noise=_GENTLE_NOISE, seed=seed)
