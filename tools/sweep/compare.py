"""What a program computes eagerly at its lengths, and whether a runtime's outputs are right."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from kinds import KINDS
from program import build, called, inputs, noisy
from torch import Tensor

_ORDER: Final = (
    (1, 0),
    (0, 0),
    (2, 0),
    (1, 1),
    (2, 1),
    (0, 1),
)  # a middle, the shortest, the longest, each again
_RELATIVE: Final = {torch.float32: 1e-3, torch.float16: 8e-2}
_COARSE: Final = 5e-2  # behind 8-bit activations, of which each is off by up to a step
_GELU: Final = 1e-3  # the runtime computes gelu by tanh
_JUMPED: Final = 100  # behind a step that jumps, one value in so many may differ


class References:
    """Inputs of all calls, in order, and eager's outputs with how far rounding moves them.

    Raises ValueError where eager's are not numbers.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        order = _ORDER if spec["lengths"] else ((1, 0), (1, 1))
        self.calls = [inputs(spec, at, seed) for at, seed in order]
        self._names = [f"{('shortest', 'middle', 'longest')[at]} {seed}" for at, seed in order]
        kinds = {step["kind"] for step in spec["steps"]}
        self._half, self._jumps = (
            spec["fp16"],
            any(KINDS[step["kind"]].may_jump(step["with"]) for step in spec["steps"]),
        )
        self._coarse = any(KINDS[kind].coarse for kind in kinds)
        self._floor = _GELU if kinds & {"gelu", "gelu_tanh"} else 1e-6
        program = build(spec)
        self._expected = called(program, self.calls)
        if any(output.isnan().any() for outputs in self._expected for output in outputs):
            raise ValueError("eager computes what is no number")
        share = 1000.0 if spec["fp16"] else 1.0
        self._noisy = [*zip(*noisy(program, self.calls, share), strict=True)]

    def wrong(self, got: Sequence[Sequence[Any]]) -> str:
        """What is wrong first; empty where all is right."""
        for name, outputs, expected, noise in zip(self._names, got, self._expected, self._noisy, strict=True):
            if len(outputs) != len(expected):
                return f"{name}: {len(outputs)} outputs, not {len(expected)}"
            for number, (output, right) in enumerate(zip(outputs, expected, strict=True)):
                if why := self._differs(output, right, [each[number] for each in noise]):
                    return f"{name}, output {number}: {why}"
        return ""

    def _differs(self, got: Any, right: Tensor, noise: Sequence[Tensor]) -> str:
        if not isinstance(got, Tensor) or got.shape != right.shape or got.dtype != right.dtype:
            return f"{getattr(got, 'dtype', got)} {[*getattr(got, 'shape', ())]}, not {right.dtype} {[*right.shape]}"
        a, b = got.double(), right.double()
        moved = torch.stack([(each.double() - b).abs() for each in noise]).amax(0).nan_to_num(0, 0, 0)
        dtype = torch.float16 if self._half else right.dtype
        limit = (
            max(_RELATIVE.get(dtype, 0.0), _COARSE * (self._coarse and right.is_floating_point()))
            * b.abs().nan_to_num(0, 0, 0).amax()
            + 8 * moved
            + self._floor * right.is_floating_point()
        )
        error = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs()).nan_to_num(torch.inf)
        bad = int((error > limit).sum())
        if bad <= (1 + right.numel() // _JUMPED if self._jumps and right.numel() > 1 else 0):
            return ""
        largest = float(error.max()), float(b.abs().amax())
        return f"{bad} of {right.numel()} values of {[*right.shape]} differ, by up to {largest[0]:.3g} of {largest[1]:.3g}"
