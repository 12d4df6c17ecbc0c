"""Batch norms in inference as one multiplication and one addition a channel.

A batch norm that ExecuTorch does not fuse into a convolution has two empty results, which no delegate can hold, and its
CPU kernel takes the default order of dimensions only. Mean and variance are constants: ``x * scale + shift`` is the same
formula, up to rounding, as torch's own kernel evaluates it.
"""

from collections.abc import Mapping

import torch
from torch import fx

from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand, operands
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten

_NAMES = ("weight", "bias", "running_mean", "running_var")


@replaces(
    aten._native_batch_norm_legit_no_training.default,  # noqa: SLF001 - the operator's name
    code="batch-norm-written-out",
    detail="a scale and a shift a channel, equal up to rounding",
)
def batch_norms_as_arithmetic(
    editor: GraphEditor, node: fx.Node, which: int, x: torch.Tensor
) -> torch.Tensor | None:
    """Write out each batch norm whose parameters are constants, and whose other results nothing takes."""
    given = {name: operands(node)[name] for name in _NAMES if operands(node)[name] is not None}
    if which or len(node.users) > 1 or not all(value in editor.constants for value in given.values()):
        return None
    scale, shift = (
        editor.tensor(editor.constant(value, f"{name}.{node.name}"))
        for name, value in _affine(node, given, editor.constants).items()
    )
    return x * scale + shift


def _affine(node: fx.Node, given: Mapping[str, fx.Node], constants: Constants) -> dict[str, torch.Tensor]:
    """Scale and shift [channels, 1, ...] of the input's type, worked out in float64."""
    value = node.meta["val"][0]
    known = {name: constants.value(of).double() for name, of in given.items()}
    scale = known.get("weight", 1.0) * torch.rsqrt(known["running_var"] + operand(node, "eps"))
    shift = known.get("bias", 0.0) - known["running_mean"] * scale
    shape = (-1, *[1] * (value.ndim - 2))
    return {name: of.reshape(shape).to(value.dtype) for name, of in (("scale", scale), ("shift", shift))}
