"""How the kernel of a convolution moves over what it reads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import fx

from vkfuse.rewrite.operands import operands

_Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A size for each axis that a kernel moves along; `pads` are zeros in front of each and behind."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pads: tuple[_Pair, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def of_image(self) -> "Window":
        """The same along an image, of one row where it moves along a sequence."""
        if len(self.kernel) > 1:
            return self
        return replace(
            self,
            kernel=(1, *self.kernel),
            stride=(1, *self.stride),
            pads=((0, 0), *self.pads),
            dilation=(1, *self.dilation),
        )


def window_of(node: fx.Node) -> Window:
    """The window of a convolution, ``aten.convolution`` or one of its forms for so many axes."""
    given = operands(node)
    kernel = tuple(given["weight"].meta["val"].shape[2:])
    dilation = each(given["dilation"], len(kernel))
    return Window(
        kernel=kernel,
        stride=each(given["stride"], len(kernel)),
        pads=_pads(given["padding"], kernel, dilation),
        dilation=dilation,
        groups=given["groups"],
    )


def each(given: Any, axes: int) -> tuple[int, ...]:
    """A size for each of so many axes, of a list of as many, of one, or of the size itself."""
    sizes = tuple(given) if isinstance(given, (list, tuple)) else (given,)
    return sizes * axes if len(sizes) == 1 else sizes


def _pads(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[_Pair, ...]:
    """What is put before and behind each axis; a word as torch defines it, "same" with the odd one behind."""
    if not isinstance(padding, str):
        return tuple((size, size) for size in each(padding, len(kernel)))
    reach = [far * (size - 1) if padding == "same" else 0 for size, far in zip(kernel, dilation, strict=True)]
    return tuple((size // 2, size - size // 2) for size in reach)
