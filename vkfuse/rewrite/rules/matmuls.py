"""What every rewritten matmul shares: a 2-D input of whole texels, a bias of the padded width, the site's shape back."""

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import fx

from vkfuse.program.tensors import TORCH_TYPES, scalar_type
from vkfuse.pte.enums import ScalarType
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.sites import Site, Table
from vkfuse.tables.decisions import Refusal
from vkfuse.tables.q4 import Q4Pack, linear_pack

if TYPE_CHECKING:
    from vkfuse.rewrite.editor import GraphEditor

aten = torch.ops.aten


class Padded(Protocol):
    """The sizes of a weight, [rows, columns], as it is and as it is stored."""

    @property
    def rows(self) -> int:
        """Outputs."""

    @property
    def columns(self) -> int:
        """Inputs."""

    @property
    def padded_rows(self) -> int:
        """Rows that are stored."""

    @property
    def padded_columns(self) -> int:
        """Columns that are stored."""


def input_of(site: Site) -> fx.Node:
    """The activation that a matmul site reads."""
    x = site.node.args[1 if site.node.target == aten.addmm.default else 0]
    if not isinstance(x, fx.Node):
        raise TypeError(f"{site.node.name} has no input tensor")
    return x


def activations(site: Site) -> ScalarType:
    """The type in which the product of the activation is computed."""
    return computed_in(input_of(site).meta["val"].dtype)


def computed_in(dtype: torch.dtype) -> ScalarType:
    """The type that the runtime computes a product of activations in: it has no bfloat16, which float32 holds."""
    return ScalarType.FLOAT if dtype is torch.bfloat16 else scalar_type(dtype)


def pack_of(site: Site, table: Table) -> Q4Pack | Refusal:
    """The 4-bit pack for a matmul site, or why the operators cannot express it."""
    return no_rows(site) or linear_pack(site.numbers(), table.readers, activations(site))


def no_rows(site: Site) -> Refusal | None:
    """The refusal of an input that is empty by its shape."""
    if all(size != 0 for size in input_of(site).meta["val"].shape if isinstance(size, int)):
        return None
    return Refusal(code="no-rows", detail="the input is empty by its shape")


def flattened(site: Site) -> tuple[str, ...]:
    """The code of an input that becomes a matrix first."""
    return ("input-flattened",) if input_of(site).meta["val"].ndim != 2 else ()


def bias_of(site: Site, constants: Constants, pack: Padded) -> torch.Tensor | Refusal | None:
    """The constant bias [padded rows] of a linear or addmm site, None where it has none."""
    args = site.node.args
    if site.node.target == aten.addmm.default:
        bias = args[0]
    elif site.node.target == aten.linear.default:
        bias = args[2] if len(args) > 2 else site.node.kwargs.get("bias")
    else:
        bias = None
    if bias is None:
        return None
    value = constants.value(bias) if isinstance(bias, fx.Node) and bias in constants else None
    if value is None or value.shape != (pack.rows,):
        return Refusal(
            code="bias-not-constant", detail="the bias is no constant vector", hint="add it after the layer"
        )
    plain = value.detach().to(TORCH_TYPES[computed_in(value.dtype)])
    return torch.nn.functional.pad(plain, (0, pack.padded_rows - pack.rows))


def rows_of(editor: "GraphEditor", x: fx.Node, pack: Padded) -> fx.Node:
    """`x` as [rows, padded columns]: the runtime's quantized matmuls are wrong on more than two dimensions."""
    node: Any = editor.node(x)
    columns = pack.padded_columns

    def make() -> Any:
        flat = (
            node if x.meta["val"].ndim == 2 else editor.call(aten.reshape.default, node, [-1, pack.columns])
        )
        flat = _cast(editor, flat, TORCH_TYPES[computed_in(x.meta["val"].dtype)])
        if columns == pack.columns:
            return flat
        return editor.call(aten.constant_pad_nd.default, flat, [0, columns - pack.columns])

    return editor.once(("rows", node, columns), make)  # type: ignore[no-any-return]


def restore_rows(editor: "GraphEditor", x: fx.Node, out: fx.Node, pack: Padded) -> fx.Node:
    """The product [rows, padded outputs] without its padding, in the shape of the site."""
    if pack.rows != pack.padded_rows:
        out = editor.call(aten.slice.Tensor, out, 1, 0, pack.rows)
    out = _cast(editor, out, x.meta["val"].dtype)
    if x.meta["val"].ndim == 2:
        return out
    return editor.call(aten.reshape.default, out, [*editor.sizes(x)[:-1], pack.rows])


def _cast(editor: "GraphEditor", node: fx.Node, dtype: torch.dtype) -> fx.Node:
    """`node` as numbers of a type, itself where it has that."""
    if node.meta["val"].dtype is dtype:
        return node
    return editor.call(aten._to_copy.default, node, dtype=dtype)  # noqa: SLF001 - the operator's name
