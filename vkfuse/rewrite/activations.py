"""Activations that are quantized by ranges of their own and dequantized again, as torchao, PT2E and ExecuTorch write it."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx

from vkfuse.rewrite.operands import operand, operands

aten = torch.ops.aten
_BYTES: Final = (-128, 127)
_SMALLEST: Final = torch.finfo(torch.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """Floats `x` as they are had back from `codes`: integers from `low` to `high`, a range for each part along `dims`.

    `least` is the smallest scale. `shifted`: zero points are added before all is rounded; `symmetric`: there are none.
    """

    x: fx.Node
    codes: fx.Node
    dims: tuple[int, ...]
    least: float
    low: int = _BYTES[0]
    high: int = _BYTES[1]
    shifted: bool = False
    symmetric: bool = False

    @property
    def of_byte_rows(self) -> bool:
        """Whether each row has a range with a zero point, of all that a byte holds, as the fused linears choose it."""
        chosen = (self.dims, self.low, self.high, self.least, self.symmetric)
        return chosen == ((self.x.meta["val"].ndim - 1,), *_BYTES, _SMALLEST.smallest_normal, False)


def rounding_of(node: fx.Node) -> Rounding | None:
    """What a node has back of activations that are quantized by ranges of their own, whoever wrote it."""
    found = (of(node) for of in (token_rounding, tensor_rounding, affine_rounding))
    return next(filter(None, found), None)


def affine_rounding(node: fx.Node) -> Rounding | None:
    """What ``torchao.dequantize_affine`` has back, of a range for whole dimensions, by zero points."""
    torchao = torch.ops.torchao
    codes = operand(node, "x") if node.target == torchao.dequantize_affine.default else None
    if codes is None or codes.target != torchao.quantize_affine.default:
        return None
    back, there = operands(node), operands(codes)
    chosen = _chosen(there["x"], [of[name] for of in (back, there) for name in ("scale", "zero_point")])
    if chosen is None or chosen.target != torchao.choose_qparams_affine.default:
        return None
    choice, value = operands(chosen), there["x"].meta["val"]
    block, *others = ([*of["block_size"]] for of in (back, there, choice))
    (low, high), *ranges = ((of["quant_min"], of["quant_max"]) for of in (choice, there, back))
    dims = _whole(block, value.shape)
    same = others == [block] * 2 and ranges == [(low, high)] * 2 and None not in (low, high)
    symmetric = choice["mapping_type"] == "SYMMETRIC" and low is not None and high == -low - 1
    known = (symmetric or choice["mapping_type"] == "ASYMMETRIC") and choice["scale_dtype"] in {
        None,
        value.dtype,
    }
    if dims is None or not (same and known):
        return None
    least = choice["eps"] or _SMALLEST.smallest_normal
    return Rounding(
        x=there["x"], codes=codes, dims=dims, least=least, low=low, high=high, symmetric=symmetric
    )


def tensor_rounding(node: fx.Node) -> Rounding | None:
    """What ``dequantize_per_tensor.tensor`` has back: one range for all of it, as PT2E's dynamic quantizers choose it."""
    decomposed = torch.ops.quantized_decomposed
    codes = operand(node, "x") if node.target == decomposed.dequantize_per_tensor.tensor else None
    if codes is None or codes.target != decomposed.quantize_per_tensor.tensor:
        return None
    x, *own = codes.args
    chosen = _chosen(x, [*node.args[1:3], *own[:2]])
    if chosen is None or chosen.target != decomposed.choose_qparams.tensor:
        return None
    low, high, least = (operands(chosen)[name] for name in ("quant_min", "quant_max", "eps"))
    if node.args[3:5] != (low, high) or codes.args[3:5] != (low, high):
        return None
    return Rounding(x=x, codes=codes, dims=tuple(range(x.meta["val"].ndim)), least=least, low=low, high=high)


def token_rounding(node: fx.Node) -> Rounding | None:
    """What ``dequantize_per_token`` has back, each row by its own range; copies to other types may stand between."""
    decomposed = torch.ops.quantized_decomposed
    codes = uncopied(operand(node, "x")) if node.target == decomposed.dequantize_per_token.default else None
    if codes is None or codes.target != decomposed.quantize_per_token.default or codes.args[3:5] != _BYTES:
        return None
    x = uncopied(codes.args[0])
    chosen = _chosen(x, [*node.args[1:3], *codes.args[1:3]])
    if chosen is None or chosen.target != decomposed.choose_qparams_per_token_asymmetric.default:
        return None
    return Rounding(x=x, codes=codes, dims=(x.meta["val"].ndim - 1,), least=_SMALLEST.eps, shifted=True)


def _chosen(x: fx.Node, given: Sequence[Any]) -> fx.Node | None:
    """The call that chose both scales and both zero points, in this order, for `x`."""
    results = [uncopied(of) for of in given]
    if any(not isinstance(of, fx.Node) or of.target is not operator.getitem for of in results):
        return None
    source = results[0].args[0]
    same = [of.args for of in results] == [(source, at) for at in (0, 1)] * 2
    return source if same and source.args[0] is x else None


def _whole(block: Sequence[Any], shape: Sequence[Any]) -> tuple[int, ...] | None:
    """The dimensions of which a block has all, where it has one of all others."""
    dims = tuple(dim for dim, size in enumerate(block) if size != 1)
    whole = all(isinstance(shape[dim], int) and block[dim] == shape[dim] for dim in dims)
    return dims if dims and whole else None


def uncopied(node: Any) -> Any:
    """What `node` has in another type, whole numbers and scales being the same in each, or in other leading sizes."""
    while isinstance(node, fx.Node) and (node.target == aten._to_copy.default or _keeps_rows(node)):  # noqa: SLF001 - the operator's name
        node = node.args[0]
    return node


def _keeps_rows(node: fx.Node) -> bool:
    if node.target not in {aten.view.default, aten.reshape.default}:
        return False
    source: fx.Node = node.args[0]  # type: ignore[assignment]
    shapes = [n.meta["val"].shape for n in (node, source)]
    return all(shapes) and str(shapes[0][-1]) == str(shapes[1][-1])
