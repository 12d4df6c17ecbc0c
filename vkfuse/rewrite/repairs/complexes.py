"""Complex numbers as pairs of real ones, which is all that ExecuTorch computes with.

Rotary embeddings are written so in the first Llama's code: ``view_as_real(view_as_complex(x) * polar(ones, angles))``. What
begins and ends as real numbers, with operators between of which each part is arithmetic on parts, is the same in pairs.

Short-time Fourier transforms are convolutions: a frame's spectrum is its product with cosines and sines, windowed; frames
are as far apart as a convolution's stride.
"""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import MOVES
from vkfuse.rewrite.operands import operand, operands
from vkfuse.rewrite.repairs.each import Repairs, done, replaces
from vkfuse.rewrite.repairs.transforms import TRANSFORMS, transformed

aten = torch.ops.aten

_Pair: TypeAlias = tuple[Any, Any]
_Rule: TypeAlias = Callable[..., Any]


def complex_numbers_as_pairs(exported: ExportedProgram) -> Repairs:
    """Compute with real and imaginary parts; a program with an operator that is not known so stays as it is.

    What no input reaches is evaluated, by whatever operators it is computed.
    """
    editor, pairs, results = GraphEditor(exported), dict[fx.Node, _Pair](), list[str]()
    for node in exported.graph.nodes:
        if node in editor.constants:
            if _is_complex(node) and any(user not in editor.constants for user in node.users):
                pairs[node] = _stored(editor, node.name, editor.constants.value(node))
            continue
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
    return editor.stored(real, f"{name}.real"), editor.stored(imaginary, f"{name}.imag")


def _is_complex(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_complex()


def _computed(editor: GraphEditor, node: fx.Node, pairs: Mapping[fx.Node, _Pair]) -> Any:
    """A pair for a complex result, a tensor for a real one, None where that is not known."""
    if node.target in TRANSFORMS:
        x = operand(node, "x")
        return transformed(editor, node, pairs[x] if x in pairs else (editor.tensor(x), None))
    rule = _RULES.get(node.target)
    if rule is not None and not node.kwargs:  # a factor, `alpha`
        return rule(*(_operand(editor, given, pairs) for given in node.args))
    if node.target not in _ON_EACH_PART:
        return None
    of = node.args[0] if isinstance(node.args[0], (list, tuple)) else [node.args[0]]
    if not all(n in pairs for n in of):
        return _of_real(editor, node) if node.target == _COPY else None
    return tuple(_part(editor, node, pairs, which) for which in (0, 1))


def _operand(editor: GraphEditor, given: Any, pairs: Mapping[fx.Node, _Pair]) -> Any:
    if isinstance(given, fx.Node):
        return pairs[given] if given in pairs else editor.tensor(given)
    return (given.real, given.imag) if isinstance(given, complex) else given


def _of_real(editor: GraphEditor, node: fx.Node) -> _Pair:
    """Real numbers as complex ones."""
    real = editor.tensor(operand(node, "x")).to(node.meta["val"].dtype.to_real())
    return real, torch.zeros_like(real)


def _in_full(editor: GraphEditor, node: fx.Node, part: torch.Tensor) -> torch.Tensor:
    """A part of what `node` computes in all its sizes; a real term or the other part may have had more."""
    same = str(part.shape) == str(node.meta["val"].shape)
    return part if same else part.expand(editor.sizes(node))


def _part(editor: GraphEditor, node: fx.Node, pairs: Mapping[fx.Node, _Pair], which: int) -> torch.Tensor:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: pairs[n][which] if n in pairs else n)
    dtype = kwargs.get("dtype")
    if isinstance(dtype, torch.dtype):
        kwargs = {**kwargs, "dtype": dtype.to_real()}
    return editor.tensor(editor.call(node.target, *args, **kwargs))


def _polar(length: Any, angle: torch.Tensor) -> _Pair:
    return _product(length, (angle.cos(), angle.sin()))  # type: ignore[no-any-return]


def _product(a: Any, b: Any) -> Any:
    """Of two pairs, or of a pair and a real number or tensor."""
    if not isinstance(a, tuple):
        a, b = b, a
    if not isinstance(b, tuple):
        return tuple(part * b for part in a)
    (ar, ai), (br, bi) = a, b
    return ar * br - ai * bi, ar * bi + ai * br


def _by_parts(term: _Rule) -> _Rule:
    """A sum or a difference; a real second operand has one part."""

    def computed(a: Any, b: Any) -> Any:
        if not isinstance(a, tuple):
            return None
        if isinstance(b, tuple):
            return tuple(term(*parts) for parts in zip(a, b, strict=True))
        return term(a[0], b), a[1]

    return computed


def _quotient(a: Any, b: Any) -> Any:
    """Of a pair and a real number or tensor."""
    return None if isinstance(b, tuple) else tuple(part / b for part in a)


_COPY: Final = aten._to_copy.default  # noqa: SLF001 - the operator's name
_RULES: Final[Mapping[Any, _Rule]] = {
    aten.view_as_complex.default: lambda x: (x.select(-1, 0), x.select(-1, 1)),
    aten.view_as_real.default: lambda z: torch.stack(z, -1),
    aten.complex.default: lambda real, imaginary: (real, imaginary),
    aten.polar.default: _polar,
    aten.mul.Tensor: _product,
    aten.add.Tensor: _by_parts(operator.add),
    aten.sub.Tensor: _by_parts(operator.sub),
    aten.div.Tensor: _quotient,
    aten.exp.default: lambda z: _polar(z[0].exp(), z[1]),
    aten.abs.default: lambda z: (z[0] * z[0] + z[1] * z[1]).sqrt(),
    aten.angle.default: lambda z: z[1].atan2(z[0]),
    aten.real.default: lambda z: z[0],
    aten.imag.default: lambda z: z[1],
    **dict.fromkeys((aten._conj.default, aten.conj_physical.default), lambda z: (z[0], -z[1])),  # noqa: SLF001
    aten.resolve_conj.default: lambda z: z,
}
_ON_EACH_PART: Final = frozenset(
    [
        *(*MOVES, aten.alias.default, aten.detach.default, aten.cat.default, _COPY),
        *(aten.index.Tensor, aten.index_select.default, aten.select.int, aten.squeeze.dims),
    ]
)


@replaces(
    *(aten.abs.default, aten.view_as_real.default),
    code="spectra-as-convolutions",
    detail="products with cosines and sines",
)
def spectra_as_convolutions(editor: GraphEditor, node: fx.Node, x: fx.Node) -> torch.Tensor | None:
    """Write the magnitude of a transform of floats, or its parts side by side, without complex numbers."""
    chosen, transform = _chosen(x)
    apart = node.target == aten.view_as_real.default
    if transform.target != aten.stft.default or not _is_plain(transform, editor) or (apart and chosen):
        return None
    parts: torch.Tensor = editor.once(("spectrum", transform), lambda: _convolved(editor, transform))
    axis, many = transform.meta["val"].ndim - 2, _frequencies(transform)
    real, imaginary = (aten.slice.Tensor(parts, axis, start, start + many) for start in (0, many))
    if apart:
        return torch.stack([real, imaginary], -1)
    magnitude = (real * real + imaginary * imaginary).sqrt()
    for choice in reversed(chosen):
        magnitude = editor.again(choice, x=magnitude)
    return magnitude  # type: ignore[no-any-return]


def _chosen(node: fx.Node) -> tuple[list[fx.Node], fx.Node]:
    """The slices, the last first, of what is behind them."""
    chosen: list[fx.Node] = []
    while node.target in {aten.slice.Tensor, aten.select.int}:
        chosen.append(node)
        node = operand(node, "x")
    return chosen, node


def _is_plain(transform: fx.Node, editor: GraphEditor) -> bool:
    """Of floats, complex, its window a constant of floats in the middle of each frame."""
    window = operand(transform, "window")
    real = operand(transform, "x").meta["val"].dtype is torch.float32
    known = window is None or (window in editor.constants and not window.meta["val"].is_complex())
    plain = transform.meta["val"].is_complex() and not operand(transform, "align_to_window")
    return real and known and plain


def _frequencies(transform: fx.Node) -> int:
    size: int = operand(transform, "n_fft")
    return size if operand(transform, "onesided") is False else size // 2 + 1


def _convolved(editor: GraphEditor, transform: fx.Node) -> torch.Tensor:
    """[.., 2 * frequencies, frames]: real parts, then imaginary ones."""
    given = operands(transform)
    size, source = given["n_fft"], editor.tensor(given["x"])
    width, hop = given["win_length"] or size, given["hop_length"] or size // 4
    window, before = torch.zeros(size, dtype=torch.float64), (size - width) // 2
    shape = 1.0 if given["window"] is None else editor.constants.value(given["window"]).double()
    window[before : before + width] = shape
    turns = torch.outer(torch.arange(_frequencies(transform)), torch.arange(size)) % size
    angles = turns * (2 * math.pi / size)
    waves = torch.cat([angles.cos(), -angles.sin()]) * window
    if given["normalized"]:
        waves = waves / math.sqrt(size)
    weight = editor.stored(waves[:, None].float(), f"waves.{transform.name}")
    waveforms = source.unsqueeze(-2)
    if source.ndim == 1:
        return torch.conv1d(waveforms.unsqueeze(0), weight, None, [hop]).squeeze(0)
    return torch.conv1d(waveforms, weight, None, [hop])
