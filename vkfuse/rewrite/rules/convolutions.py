"""Convolutions with 8-bit weights and one scale for each output become ``et_vk.conv2d_q8csw`` on a padded image."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from vkfuse.multiples import round_up
from vkfuse.options import Storage, VulkanOptions
from vkfuse.program.tensors import described, tensor
from vkfuse.pte.enums import ScalarType
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.decisions import Held, Proposal
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand, operands
from vkfuse.rewrite.rules.matmuls import input_of
from vkfuse.rewrite.sites import Site, Table
from vkfuse.rewrite.windows import Window, window_of
from vkfuse.runtime.codes import Code
from vkfuse.runtime.device import SMALL_TEXTURE, TEXTURE
from vkfuse.tables import groups
from vkfuse.tables.decisions import Refusal, Rung
from vkfuse.tables.floats import Array
from vkfuse.tables.grid import Grid
from vkfuse.tables.patches import as_patches, from_patches
from vkfuse.tables.q8 import Q8Pack, q8_pack

aten = torch.ops.aten
_IMAGE = 4  # dimensions


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Patches:
    """The pack of a weight by the patches of an image, [outputs, pixels * inputs]."""

    pack: Q8Pack
    kernel: tuple[int, ...]

    def rebuild(self, low: int, high: int) -> Array:
        """Rows [low, high) of the weight as the program has it, [outputs, inputs * pixels]."""
        return from_patches(self.pack.rebuild(low, high), self.kernel)


def propose_q8_convolution(site: Site, table: Table, constants: Constants) -> Proposal | Refusal:
    """A fused convolution with one byte a weight, or why the operator cannot express this one."""
    refused = _not_in_floats(site, table.choices) or _transposed(site)
    if refused is not None:
        return refused
    window = window_of(site.node).of_image
    pack = _pack_of(site.numbers(), window.kernel)
    if isinstance(pack, Refusal):
        return pack
    bias = operand(site.node, "bias")
    if bias is not None and bias not in constants:
        return Refusal(code="bias-not-constant", detail="the bias is no constant vector")
    stored = {what: tensor(part) for what, part in pack.parts.items()}
    if bias is not None:
        plain = constants.value(bias).detach().float()
        stored["bias"] = torch.nn.functional.pad(plain, (0, pack.padded_rows - pack.rows))
    return Proposal(
        name=table.name,
        pack=_Patches(pack=pack, kernel=window.kernel),
        stored=stored,
        made=partial(_convolved, pack, window),
        rung=Rung.Q8,
        operators=("et_vk.conv2d_q8csw.default",),
        how=(*pack.how, *(("zero-points-folded",) if site.numbers().has_zero_points else ())),
    )


def _convolved(pack: Q8Pack, window: Window, editor: GraphEditor, site: Site, held: Held) -> torch.Tensor:
    """The convolved image, in the shape and dtype of the site."""
    value = site.node.meta["val"]
    image = editor.tensor(input_of(site)).to(torch.float32)
    if value.ndim < _IMAGE:
        image = image.unsqueeze(2)
    around = [size for pair in reversed(window.pads) for size in pair]
    if any(around):  # the shader fetches what lies beyond an image, of which Vulkan says nothing
        image = torch.constant_pad_nd(image, around)
    moves = map(list, (window.kernel, window.stride, (0, 0), window.dilation))
    stored = map(held, ("q8", "scales", "bias"))
    out: torch.Tensor = torch.ops.et_vk.conv2d_q8csw.default(image, *stored, *moves, window.groups)
    if pack.rows != pack.padded_rows:
        out = aten.slice.Tensor(out, 1, 0, pack.rows)
    return (out.squeeze([2]) if value.ndim < _IMAGE else out).to(value.dtype)


def _pack_of(grid: Grid, kernel: tuple[int, ...]) -> Q8Pack | Refusal:
    """The patches of a weight, each with zeros behind it up to a multiple of four, as its group's begin in texels."""
    values = grid.centred()
    if values is None:
        values = np.full(grid.values.shape, np.iinfo(np.int16).max)  # of no byte, as the pack finds
    columns = round_up(grid.columns, groups.SHADER_VECTOR)
    whole = columns if grid.group_size == grid.columns else grid.group_size
    patches = groups.pad(as_patches(values, kernel), grid.rows, columns)
    pack = q8_pack(replace(grid, values=patches, zero_points=None, group_size=whole), ScalarType.FLOAT)
    return pack if isinstance(pack, Refusal) else replace(pack, columns=grid.columns)


def _not_in_floats(site: Site, choices: VulkanOptions) -> Refusal | None:
    """Why an image is not of float32 in a texture, as the only shaders want it."""
    limit, *_ = SMALL_TEXTURE if choices.small_textures else TEXTURE
    sizes = [size for node in (site.node, input_of(site)) for size in described(node.meta["val"]).dims[1:]]
    if choices.fp16 or choices.storage is not Storage.TEXTURE or max(sizes) > limit:
        return Refusal(
            code=Code.NO_SHADER, detail="the runtime convolves by bytes in textures of float32 only"
        )
    return None


def _transposed(site: Site) -> Refusal | None:
    if not operands(site.node).get("transposed"):
        return None
    return Refusal(code="transposed-convolution", detail="the runtime's is of floats, or of bytes throughout")
