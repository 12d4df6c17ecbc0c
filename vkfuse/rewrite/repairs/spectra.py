"""Short-time Fourier transforms as convolutions: ExecuTorch has no complex numbers, but their real and imaginary parts.

A frame's spectrum is its product with cosines and sines, windowed; frames are as far apart as a convolution's stride.
"""

import math

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand, operands
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten


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
