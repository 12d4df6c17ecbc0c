"""Activations quantized by their own ranges and dequantized again, without integers, which a delegate has not."""

import torch
from torch import fx

from vkfuse.rewrite.activations import Rounding, rounding_of
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import same_shape
from vkfuse.rewrite.repairs.each import replaces


@replaces(code="rows-quantized-in-floats", detail="integers and back, in arithmetic on floats")
def rows_quantized_in_floats(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    """Replace what dequantizes bytes that were quantized by ranges of their own.

    torch/ao/quantization/fx/_decomposed.py and torchao/quantization/quant_primitives.py. The two candidates for a zero
    point of choose_qparams_per_token_asymmetric are one where the range is not tiny. Some compute with float64, so that a
    number half-way between two steps may be rounded to the other.
    """
    found = rounding_of(node)
    if found is None or {n.meta["val"].dtype for n in (found.x, node)} != {torch.float32}:
        return None
    back: torch.Tensor = editor.once(
        ("rounded", found.codes), lambda: _rounded(editor.tensor(found.x), found)
    )
    return back if same_shape(found.x, node) else back.reshape(editor.sizes(node))


def _rounded(x: torch.Tensor, of: Rounding) -> torch.Tensor:
    """The nearest multiple of the scale to each number, within the range of what is stored."""
    if of.symmetric:
        return _rounded_about_zero(x, of)
    least, most = x, x
    for dim in of.dims[::-1]:  # one after the other, as the shaders reduce
        least, most = least.amin([dim], True), most.amax([dim], True)
    least = -(-least).relu()
    scale = ((most.relu() - least) / float(of.high - of.low)).clamp(of.least)
    zero = ((-(least / scale)).round() + float(of.low)).clamp(of.low, of.high)
    steps = x * scale.reciprocal()
    whole = (steps + zero).round() if of.shifted else steps.round() + zero
    kept: torch.Tensor = (whole.clamp(float(of.low), float(of.high)) - zero) * scale
    return kept


def _rounded_about_zero(x: torch.Tensor, of: Rounding) -> torch.Tensor:
    """The same by a scale that the largest magnitude chooses."""
    most = x.abs()
    for dim in of.dims[::-1]:
        most = most.amax([dim], True)
    scale = (most / (float(of.high - of.low) / 2)).clamp(of.least)
    kept: torch.Tensor = (x * scale.reciprocal()).round().clamp(float(of.low), float(of.high)) * scale
    return kept
