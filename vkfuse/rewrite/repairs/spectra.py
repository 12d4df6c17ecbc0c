"""Short-time Fourier transforms as convolutions: ExecuTorch has no complex numbers, but their real and imaginary parts.

A frame's spectrum is its product with cosines and sines, windowed; frames are as far apart as a convolution's stride.
"""

import math
from typing import Any

import torch
from torch import fx

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten


@replaces(
    *(aten.abs.default, aten.view_as_real.default),
    code="spectra-as-convolutions",
    detail="products with cosines and sines",
)
def spectra_as_convolutions(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Write the magnitude of a transform of floats, or its parts side by side, without complex numbers."""
    chosen, transform = _chosen(argument(node, 0, "self"))
    apart = node.target == aten.view_as_real.default
    if transform.target != aten.stft.default or not _is_plain(transform, editor) or (apart and chosen):
        return None
    parts: fx.Node = editor.once(("spectrum", transform), lambda: _convolved(editor, transform))
    axis, many = transform.meta["val"].ndim - 2, _frequencies(transform)
    real, imaginary = (
        editor.call(aten.slice.Tensor, parts, axis, start, start + many) for start in (0, many)
    )
    if apart:
        return editor.call(aten.stack.default, [real, imaginary], -1)
    squares = [editor.call(aten.mul.Tensor, part, part) for part in (real, imaginary)]
    magnitude = editor.call(aten.sqrt.default, editor.call(aten.add.Tensor, *squares))
    for choice in reversed(chosen):
        magnitude = editor.call(choice.target, magnitude, *choice.args[1:])
    return magnitude


def _chosen(node: fx.Node) -> tuple[list[fx.Node], fx.Node]:
    """The slices, the last first, of what is behind them."""
    chosen: list[fx.Node] = []
    while node.target in {aten.slice.Tensor, aten.select.int}:
        chosen.append(node)
        node = argument(node, 0, "self")
    return chosen, node


def _is_plain(transform: fx.Node, editor: GraphEditor) -> bool:
    """Of floats, complex, its window a constant of floats in the middle of each frame."""
    window = _option(transform, "window")
    real = argument(transform, 0, "self").meta["val"].dtype is torch.float32
    known = window is None or (window in editor.constants and not window.meta["val"].is_complex())
    plain = transform.meta["val"].is_complex() and not _option(transform, "align_to_window")
    return real and known and plain


def _option(transform: fx.Node, name: str) -> Any:
    names = [of.name for of in aten.stft.default._schema.arguments]  # noqa: SLF001
    return argument(transform, names.index(name), name)


def _frequencies(transform: fx.Node) -> int:
    size: int = _option(transform, "n_fft")
    return size if _option(transform, "onesided") is False else size // 2 + 1


def _convolved(editor: GraphEditor, transform: fx.Node) -> fx.Node:
    """[.., 2 * frequencies, frames]: real parts, then imaginary ones."""
    size, source = _option(transform, "n_fft"), argument(transform, 0, "self")
    width = _option(transform, "win_length") or size
    window, before = torch.zeros(size, dtype=torch.float64), (size - width) // 2
    given = _option(transform, "window")
    window[before : before + width] = 1.0 if given is None else editor.constants.value(given).double()
    angles = (
        torch.outer(torch.arange(_frequencies(transform)), torch.arange(size)) % size * (2 * math.pi / size)
    )
    waves = torch.cat([angles.cos(), -angles.sin()]) * window
    if _option(transform, "normalized"):
        waves = waves / math.sqrt(size)
    weight = editor.constant(waves[:, None].float(), f"waves.{transform.name}")
    hop, single = _option(transform, "hop_length") or size // 4, source.meta["val"].ndim == 1
    waveforms = editor.call(aten.unsqueeze.default, source, -2)
    waveforms = editor.call(aten.unsqueeze.default, waveforms, 0) if single else waveforms
    parts = editor.call(aten.conv1d.default, waveforms, weight, None, [hop])
    return editor.call(aten.squeeze.dim, parts, 0) if single else parts
