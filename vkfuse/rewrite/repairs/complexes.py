"""Complex numbers as pairs of real ones, which is all that ExecuTorch computes with.

Rotary embeddings are written so in the first Llama's code: ``view_as_real(view_as_complex(x) * polar(ones, angles))``. What
begins and ends as real numbers, with operators between of which each part is arithmetic on parts, is the same in pairs.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.program.load import constants_of
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import done
from vkfuse.rewrite.repairs.notes import Repairs

aten = torch.ops.aten

_Pair: TypeAlias = tuple[Any, Any]
_Rule: TypeAlias = Callable[..., Any]


def complex_numbers_as_pairs(exported: ExportedProgram) -> Repairs:
    """Compute with real and imaginary parts; a program with an operator that is not known so stays as it is."""
    editor, pairs, results = GraphEditor(exported), dict[fx.Node, _Pair](), list[str]()
    tensors = constants_of(exported)
    for node in exported.graph.nodes:
        if node.name in tensors and tensors[node.name].is_complex():
            pairs[node] = _stored(editor, node.name, tensors[node.name])
        if node.op != "call_function" or not (
            _is_complex(node) or any(n in pairs for n in node.all_input_nodes)
        ):
            continue
        with editor.before(node):
            made = _computed(editor, node, pairs)
            if isinstance(made, tuple):
                made = tuple(_in_full(editor, node, part) for part in made)
        if made is None or isinstance(made, tuple) != _is_complex(node):
            return exported, ()
        if isinstance(made, tuple):
            pairs[node] = made
        else:
            editor.replace(node, made)
            results.append(node.name)
    return done(editor, results, code="complex-as-pairs", detail="real and imaginary parts")


def _stored(editor: GraphEditor, name: str, value: torch.Tensor) -> _Pair:
    real, imaginary = torch.view_as_real(value.resolve_conj()).unbind(-1)
    return editor.constant(real, f"{name}.real"), editor.constant(imaginary, f"{name}.imag")


def _is_complex(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_complex()


def _computed(editor: GraphEditor, node: fx.Node, pairs: Mapping[fx.Node, _Pair]) -> Any:
    """A pair for a complex result, a node for a real one, None where that is not known."""
    rule = _RULES.get(node.target)
    if rule is not None and not node.kwargs:  # a factor, `alpha`
        operands = (pairs.get(a, a) if isinstance(a, fx.Node) else a for a in node.args)
        return rule(editor, *(_pair(a) if isinstance(a, complex) else a for a in operands))
    if node.target not in _ON_EACH_PART:
        return None
    of = node.args[0] if isinstance(node.args[0], (list, tuple)) else [node.args[0]]
    if not all(n in pairs for n in of):
        return _of_real(editor, node) if node.target == _COPY else None
    return tuple(_part(editor, node, pairs, which) for which in (0, 1))


def _pair(number: complex) -> _Pair:
    return number.real, number.imag


def _of_real(editor: GraphEditor, node: fx.Node) -> _Pair:
    """Real numbers as complex ones."""
    source: fx.Node = node.args[0]  # type: ignore[assignment]
    real = editor.cast(source, node.meta["val"].dtype.to_real())
    return real, editor.call(aten.zeros_like.default, real)


def _in_full(editor: GraphEditor, node: fx.Node, part: fx.Node) -> fx.Node:
    """A part of what `node` computes in all its sizes; a real term or the other part may have had more."""
    same = str(part.meta["val"].shape) == str(node.meta["val"].shape)
    return part if same else editor.call(aten.expand.default, part, editor.sizes(node))


def _part(editor: GraphEditor, node: fx.Node, pairs: Mapping[fx.Node, _Pair], which: int) -> fx.Node:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: pairs[n][which] if n in pairs else n)
    dtype = kwargs.get("dtype")
    if isinstance(dtype, torch.dtype):
        kwargs = {**kwargs, "dtype": dtype.to_real()}
    return editor.call(node.target, *args, **kwargs)


def _of_columns(editor: GraphEditor, x: fx.Node) -> _Pair:
    return editor.call(aten.select.int, x, -1, 0), editor.call(aten.select.int, x, -1, 1)


def _columns(editor: GraphEditor, z: _Pair) -> fx.Node:
    return editor.call(aten.stack.default, [*z], -1)


def _polar(editor: GraphEditor, length: Any, angle: fx.Node) -> _Pair:
    turned = editor.call(aten.cos.default, angle), editor.call(aten.sin.default, angle)
    return _product(editor, length, turned)  # type: ignore[no-any-return]


def _exp(editor: GraphEditor, z: _Pair) -> _Pair:
    return _polar(editor, editor.call(aten.exp.default, z[0]), z[1])


def _product(editor: GraphEditor, a: Any, b: Any) -> Any:
    """Of two pairs, or of a pair and a real number or tensor."""
    if not isinstance(a, tuple):
        a, b = b, a
    if not isinstance(b, tuple):
        return tuple(_times(editor, part, b) for part in a)
    (ar, ai), (br, bi) = a, b
    real = editor.call(aten.sub.Tensor, _times(editor, ar, br), _times(editor, ai, bi))
    return real, editor.call(aten.add.Tensor, _times(editor, ar, bi), _times(editor, ai, br))


def _times(editor: GraphEditor, a: Any, b: Any) -> fx.Node:
    return editor.call(aten.mul.Tensor, *((a, b) if isinstance(a, fx.Node) else (b, a)))


def _by_parts(operator: Any) -> _Rule:
    """A sum or a difference; a real second operand has one part."""

    def computed(editor: GraphEditor, a: Any, b: Any) -> Any:
        if not isinstance(a, tuple):
            return None
        if isinstance(b, tuple):
            return tuple(editor.call(operator, *parts) for parts in zip(a, b, strict=True))
        return editor.call(operator, a[0], b), a[1]

    return computed


def _quotient(editor: GraphEditor, a: Any, b: Any) -> Any:
    """Of a pair and a real number or tensor."""
    return None if isinstance(b, tuple) else tuple(editor.call(aten.div.Tensor, part, b) for part in a)


def _conjugate(editor: GraphEditor, z: _Pair) -> _Pair:
    return z[0], editor.call(aten.neg.default, z[1])


def _length(editor: GraphEditor, z: _Pair) -> fx.Node:
    squares = (_times(editor, part, part) for part in z)
    return editor.call(aten.sqrt.default, editor.call(aten.add.Tensor, *squares))


_COPY: Final = aten._to_copy.default  # noqa: SLF001 - the operator's name
_RULES: Final[Mapping[Any, _Rule]] = {
    aten.view_as_complex.default: _of_columns,
    aten.view_as_real.default: _columns,
    aten.complex.default: lambda _editor, real, imaginary: (real, imaginary),
    aten.polar.default: _polar,
    aten.mul.Tensor: _product,
    aten.add.Tensor: _by_parts(aten.add.Tensor),
    aten.sub.Tensor: _by_parts(aten.sub.Tensor),
    aten.div.Tensor: _quotient,
    aten.exp.default: _exp,
    aten.abs.default: _length,
    aten.real.default: lambda _editor, z: z[0],
    aten.imag.default: lambda _editor, z: z[1],
    **dict.fromkeys((aten._conj.default, aten.conj_physical.default), _conjugate),  # noqa: SLF001 - the operator's name
    aten.resolve_conj.default: lambda _editor, z: z,
}
_ON_EACH_PART: Final = frozenset(
    {
        *(
            getattr(aten, n).default
            for n in ("unsqueeze", "view", "reshape", "expand", "permute", "clone", "alias")
        ),
        *(getattr(aten, n).Tensor for n in ("index", "slice")),
        *(getattr(aten, n).int for n in ("select", "transpose")),
        *(
            aten.squeeze.dim,
            aten.squeeze.dims,
            aten.index_select.default,
            aten.detach.default,
            aten.cat.default,
        ),
        _COPY,
    }
)
