"""Matmuls with quantized weights as fused ones: a 2-D input of whole texels, a bias of the padded width, the shape back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

import torch
from torch import fx

from vkfuse.program.tensors import TORCH_TYPES, scalar_type, tensor
from vkfuse.pte.enums import ScalarType
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.decisions import Held, Proposal
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operands
from vkfuse.rewrite.sites import Site, Table
from vkfuse.rewrite.traced import untraced
from vkfuse.runtime.operators.linear import FUSED
from vkfuse.tables.decisions import Refusal, Rung
from vkfuse.tables.floats import Array
from vkfuse.tables.grid import Grid
from vkfuse.tables.planes import BASE, FACTORS, Planes, float_planes
from vkfuse.tables.q4 import Packer, Q4Pack, linear_pack, linear_scales, q4_pack
from vkfuse.tables.q8 import Q8Pack, q8_pack
from vkfuse.tables.readers import Readers

aten = torch.ops.aten

Padded: TypeAlias = Q4Pack | Q8Pack  # rows and columns as they are and as they are stored
_Pack = TypeVar("_Pack", bound=Padded)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fused:
    """What calls a fused matmul: the operator, on `x`, rows of which are followed by `parameters`, and the arguments.

    `stored` is the weight, then its scales, then the rest; the call takes them in the order of `arguments`, then `group`.
    """

    operator: Any
    x: fx.Node
    pack: Padded
    stored: Mapping[str, Array]
    arguments: tuple[str, ...]
    group: tuple[int, ...] = ()
    parameters: Callable[[GraphEditor, torch.Tensor], tuple[Any, ...]] = lambda _editor, _rows: ()


def propose_q4_linear(site: Site, table: Table, constants: Constants) -> Proposal | Refusal:
    """``et_vk.linear_q4gsw``, weight-only, in the pack of a tied lookup; or why the operator cannot express this one."""

    def fused(pack: Q4Pack) -> Fused:
        scales = linear_scales(pack, activations(site))
        return Fused(
            operator=torch.ops.et_vk.linear_q4gsw.default,
            x=input_of(site),
            pack=pack.by_scales(scales),
            stored={"q4": pack.packed, "scales_t": scales},
            arguments=("q4", "scales_t"),
            group=(pack.group_size,),
        )

    return proposed(site, table, constants, pack_of(site, table, constants), fused)


def propose_q8_linear(site: Site, table: Table, constants: Constants) -> Proposal | Refusal:
    """``et_vk.linear_q8csw``, one byte a weight and one scale an output; or why the operator cannot express this one."""

    def fused(pack: Q8Pack) -> Fused:
        return Fused(
            operator=torch.ops.et_vk.linear_q8csw.default,
            x=input_of(site),
            pack=pack,
            stored=pack.parts,
            arguments=("q8", "scales"),
        )

    pack = _no_rows(site) or q8_pack(site.numbers(), activations(site))
    return proposed(site, table, constants, pack, fused, rung=Rung.Q8)


def propose_q4_planes(site: Site, table: Table, constants: Constants) -> Proposal | Refusal:
    """4-bit integers whose zero points do not fold into them, in float32; or why they cannot be expressed."""
    return _in_planes(site, table, constants, 1)


def propose_q8_planes(site: Site, table: Table, constants: Constants) -> Proposal | Refusal:
    """Integers of 5 to 8 bits as two digits, in float32; or why they cannot be expressed."""
    return _in_planes(site, table, constants, 2)


def _in_planes(site: Site, table: Table, constants: Constants, count: int) -> Proposal | Refusal:
    """``et_vk.linear_q4gsw`` for each digit, and for what the zero points take off the sum of each group of inputs."""
    if table.choices.fp16:
        return Refusal(
            code="sums-in-half-precision", detail="--fp16: zero points are taken off sums in float32"
        )
    pack = _no_rows(site) or float_planes(site.numbers(), table.readers, activations(site), count)
    bias = pack if isinstance(pack, Refusal) else _bias_of(site, constants, pack.pack)
    if isinstance(pack, Refusal) or isinstance(bias, Refusal):
        return pack if isinstance(pack, Refusal) else bias  # type: ignore[return-value]
    first, *rest = (tensor(digit.packed) for digit in pack.digits)
    stored = {"q4": first, "scales_t": tensor(linear_scales(pack.pack, ScalarType.FLOAT))}
    stored |= {f"q4_{at}": digit for at, digit in enumerate(rest, 1)} | {"offsets": tensor(pack.offsets)}
    return Proposal(
        name=table.name,
        pack=pack,
        stored=stored if bias is None else {**stored, "bias": bias.float()},
        made=partial(_summed, pack),
        rung=Rung.Q4 if count == 1 else Rung.Q8,
        operators=(FUSED,),
        how=(*pack.how, *(() if input_of(site).meta["val"].ndim == 2 else ("input-flattened",))),
    )


def _summed(planes: Planes, editor: GraphEditor, site: Site, held: Held) -> torch.Tensor:
    """The product by the digits, the more significant ones times sixteen, less the offsets of the groups' sums."""
    x, pack, group = input_of(site), planes.pack, planes.pack.group_size
    rows, scales = _rows_of(editor, x, pack, torch.float32), held("scales_t")

    def fused(x: torch.Tensor, what: str, group: int, bias: torch.Tensor | None = None) -> torch.Tensor:
        return torch.ops.et_vk.linear_q4gsw.default(x, held(what), scales, group, bias)  # type: ignore[no-any-return]

    def of_groups() -> torch.Tensor:
        sums = rows.reshape([-1, group]).sum([-1], True)
        spread = sums * editor.stored(torch.tensor([FACTORS]), "factors")
        return spread.reshape([-1, pack.padded_columns // group * len(FACTORS)])

    sums = editor.once(("sums", untraced(rows), group), of_groups)
    taken = fused(sums, "offsets", len(FACTORS))
    *more, last = ("q4", *(f"q4_{at}" for at in range(1, len(planes.digits))))
    for digit in more:
        taken = taken - fused(rows, digit, group) * float(BASE)
    return _restored(editor, x, fused(rows, last, group, held("bias")) - taken, pack)


def proposed(
    site: Site,
    table: Table,
    constants: Constants,
    pack: _Pack | Refusal,
    fused: Callable[[_Pack], Fused],
    *,
    rung: Rung = Rung.Q4,
    operators: tuple[str, ...] = (),
) -> Proposal | Refusal:
    """A fused matmul by a pack that was made; `operators` are further ones that it needs."""
    if isinstance(pack, Refusal):
        return pack
    bias = _bias_of(site, constants, pack)
    if isinstance(bias, Refusal):
        return bias
    made = fused(pack)
    stored = {what: tensor(value) for what, value in made.stored.items()}
    flattened = () if made.x.meta["val"].ndim == 2 else ("input-flattened",)
    return Proposal(
        name=table.name,
        pack=made.pack,
        stored=stored if bias is None else {**stored, "bias": bias},
        made=partial(_multiplied, made),
        rung=rung,
        operators=(f"{made.operator}", *operators),
        how=(*pack.how, *flattened),
    )


def _multiplied(fused: Fused, editor: GraphEditor, _site: Site, held: Held) -> torch.Tensor:
    """The product, in the shape of the site."""
    rows = _rows_of(editor, fused.x, fused.pack)
    given = *fused.parameters(editor, rows), *map(held, fused.arguments), *fused.group
    return _restored(editor, fused.x, fused.operator(rows, *given, held("bias")), fused.pack)


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


def pack_of(site: Site, table: Table, constants: Constants) -> Q4Pack | Refusal:
    """The 4-bit pack for a matmul site, or why the operators cannot express it."""
    return _no_rows(site) or linear_pack(
        site.numbers(), table.readers, activations(site), packer_of(table, constants)
    )


def packer_of(table: Table, constants: Constants) -> Packer:
    """What packs a table that lookups and linears read once for both: all that read it have equal values."""

    def packed(grid: Grid, readers: Readers, *, columns_multiple: int) -> Q4Pack | Refusal:
        key = (Q4Pack, table.identity, columns_multiple)
        made = constants.derived.get(key)
        if isinstance(made, _Packed) and made.grid.is_scaled_like(grid):
            return made.pack
        pack = q4_pack(grid, readers, columns_multiple=columns_multiple)
        if readers.looked_up and readers.multiplied and not grid.found:
            constants.derived[key] = _Packed(grid=grid, pack=pack)
        return pack

    return packed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Packed:
    """A pack, or why there is none, and of what."""

    grid: Grid
    pack: Q4Pack | Refusal


def _no_rows(site: Site) -> Refusal | None:
    """The refusal of an input that is empty by its shape."""
    if all(size != 0 for size in input_of(site).meta["val"].shape if isinstance(size, int)):
        return None
    return Refusal(code="no-rows", detail="the input is empty by its shape")


def _bias_of(site: Site, constants: Constants, pack: Padded) -> torch.Tensor | Refusal | None:
    """The constant bias [padded rows] of a linear or addmm site, None where it has none."""
    given = operands(site.node)
    bias = given["x"] if site.node.target == aten.addmm.default else given.get("bias")
    if bias is None:
        return None
    value = constants.value(bias) if isinstance(bias, fx.Node) and bias in constants else None
    if value is None or value.shape != (pack.rows,):
        return Refusal(
            code="bias-not-constant", detail="the bias is no constant vector", hint="add it after the layer"
        )
    plain = value.detach().to(TORCH_TYPES[computed_in(value.dtype)])
    return torch.nn.functional.pad(plain, (0, pack.padded_rows - pack.rows))


def _rows_of(editor: GraphEditor, x: fx.Node, pack: Padded, dtype: torch.dtype | None = None) -> torch.Tensor:
    """`x` as [rows, padded columns]: the runtime's quantized matmuls are wrong on more than two dimensions."""
    value, columns = editor.tensor(x), pack.padded_columns
    kind = dtype or TORCH_TYPES[computed_in(value.dtype)]

    def make() -> torch.Tensor:
        flat = (value if value.ndim == 2 else value.reshape([-1, pack.columns])).to(kind)
        more = columns - pack.columns
        return torch.constant_pad_nd(flat, [0, more]) if more else flat

    return editor.once(("rows", editor.node(x), columns, kind), make)  # type: ignore[no-any-return]


def _restored(editor: GraphEditor, x: fx.Node, out: torch.Tensor, pack: Padded) -> torch.Tensor:
    """The product [rows, padded outputs] without its padding, in the shape of the site."""
    if pack.rows != pack.padded_rows:
        out = aten.slice_copy.Tensor(out, 1, 0, pack.rows)
    out = out.to(x.meta["val"].dtype)
    return out if x.meta["val"].ndim == 2 else out.reshape([*editor.sizes(x)[:-1], pack.rows])
