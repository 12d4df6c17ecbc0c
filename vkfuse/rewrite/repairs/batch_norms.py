"""Batch norms in inference as one multiplication and one addition a channel.

A batch norm that ExecuTorch does not fuse into a convolution has two empty results, which no delegate can hold, and its
CPU kernel takes the default order of dimensions only. Mean and variance are constants: ``x * scale + shift`` is the same
formula, up to rounding, as torch's own kernel evaluates it.
"""

import operator

import torch
from torch import fx

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten

_NAMES = ("weight", "bias", "running_mean", "running_var")
_EPS = 6


@replaces(
    operator.getitem,
    code="batch-norm-written-out",
    detail="a scale and a shift a channel, equal up to rounding",
)
def batch_norms_as_arithmetic(editor: GraphEditor, result: fx.Node) -> fx.Node | None:
    """Write out each batch norm whose parameters are constants."""
    constants = editor.constants
    if not _is_result(result) or not _is_fixed(argument(result, 0, "self"), constants):
        return None
    node = argument(result, 0, "self")
    scale, shift = (
        editor.constant(value, f"{name}.{node.name}")
        for name, value in zip(("scale", "shift"), _affine(node, constants), strict=True)
    )
    scaled = editor.call(aten.mul.Tensor, argument(node, 0, "input"), scale)
    return editor.call(aten.add.Tensor, scaled, shift)


def _is_result(node: fx.Node) -> bool:
    """Whether `node` takes the normalized tensor of a batch norm, whose other results nothing takes."""
    norm = argument(node, 0, "self")
    is_norm = norm.target == aten._native_batch_norm_legit_no_training.default  # noqa: SLF001 - the operator's name
    return bool(is_norm and node.args[1] == 0 and len(norm.users) == 1)


def _is_fixed(node: fx.Node, constants: Constants) -> bool:
    given = [argument(node, i, name) for i, name in enumerate(_NAMES, start=1)]
    return all(value is None or value in constants for value in given)


def _affine(node: fx.Node, constants: Constants) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift [channels, 1, ...] of the input's type, worked out in float64."""
    value = node.meta["val"][0]
    given = {name: argument(node, i, name) for i, name in enumerate(_NAMES, start=1)}
    known = {name: constants.value(of).double() for name, of in given.items() if of is not None}
    scale = known.get("weight", 1.0) * torch.rsqrt(known["running_var"] + argument(node, _EPS, "eps"))
    shift = known.get("bias", 0.0) - known["running_mean"] * scale
    shape = (-1, *[1] * (value.ndim - 2))
    return scale.reshape(shape).to(value.dtype), shift.reshape(shape).to(value.dtype)
