"""Rows quantized by their own ranges and dequantized again, without integers, which a delegate has not."""

import operator

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import same_shape
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten


@replaces(code="rows-quantized-in-floats", detail="integers and back, in arithmetic on floats")
def rows_quantized_in_floats(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    """Replace what dequantizes rows of bytes that were quantized by ranges of their own.

    torch/ao/quantization/fx/_decomposed.py, choose_qparams_per_token_asymmetric to dequantize_per_token; its two
    candidates for a zero point are one where the range is not tiny. It computes with float64, so that a number
    half-way between two steps may be rounded to the other.
    """
    rows = _rows_there_and_back(node)
    if rows is None:
        return None
    x = editor.tensor(rows)
    least = -(-x.amin([-1], True)).relu()
    span = x.amax([-1], True).relu() - least
    scale = (span * (1 / 255)).clamp(torch.finfo(torch.float32).eps)
    zero = _whole(-(least / scale) - 128.0)
    back = (_whole(x / scale + zero) - zero) * scale
    return back if same_shape(rows, node) else back.reshape(editor.sizes(node))


def _whole(x: torch.Tensor) -> torch.Tensor:
    """The nearest of the whole numbers from -128 to 127."""
    return x.round().clamp(-128.0, 127.0)


def _rows_there_and_back(node: fx.Node) -> fx.Node | None:
    """The rows of floats that `node` has back from bytes, by scales and zero points that were chosen for them."""
    if _name(node) != "dequantize_per_token":
        return None
    quantized, *chosen = (_uncopied(operand) for operand in node.args[:3])  # type: ignore[arg-type]
    if _name(quantized) != "quantize_per_token" or quantized.args[3:5] != (-128, 127):
        return None
    x, *own = (_uncopied(operand) for operand in quantized.args[:3])  # type: ignore[arg-type]
    source = own[0].args[0]
    results = [(n.target, n.args) for n in (*chosen, *own)]
    if results != [(operator.getitem, (source, at)) for at in (0, 1)] * 2 or not isinstance(source, fx.Node):
        return None
    of = _name(source) == "choose_qparams_per_token_asymmetric" and source.args[0] is x
    return x if of and x.meta["val"].dtype == node.meta["val"].dtype == torch.float32 else None


def _name(node: fx.Node) -> str:
    namespace, _, rest = str(node.target).partition(".")
    return rest.removesuffix(".default") if namespace == "quantized_decomposed" else ""


def _uncopied(node: fx.Node) -> fx.Node:
    """What `node` has in another type, whole numbers and scales being the same in each, or in other leading sizes."""
    while node.target == aten._to_copy.default or _keeps_rows(node):  # noqa: SLF001 - the operator's name
        node = node.args[0]  # type: ignore[assignment]
    return node


def _keeps_rows(node: fx.Node) -> bool:
    if node.target not in {aten.view.default, aten.reshape.default}:
        return False
    source: fx.Node = node.args[0]  # type: ignore[assignment]
    shapes = [n.meta["val"].shape for n in (node, source)]
    return all(shapes) and str(shapes[0][-1]) == str(shapes[1][-1])
