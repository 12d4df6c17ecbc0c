"""Complex numbers in real and imaginary parts."""

import pytest
import torch
from torch import nn
from torch.export import Dim

from vkfuse.program.load import from_exported
from vkfuse.rewrite.repairs.complexes import complex_numbers_as_pairs

ANGLES = torch.outer(torch.arange(32.0), 1 / 10000 ** (torch.arange(0, 8, 2) / 8))


class _Rotated(nn.Module):
    """x [1, rows, 2, 8] rotated by angles from a position on, which `turn` makes complex numbers of."""

    def __init__(self, turn):
        super().__init__()
        self.register_buffer("turned", torch.polar(torch.ones_like(ANGLES), ANGLES))
        self.register_buffer("angles", ANGLES)
        self._turn = turn

    def forward(self, x, position):
        rows = position + torch.arange(x.shape[1])
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        turned = self._turn(self, rows)[None, :, None]
        return torch.view_as_real(pairs * turned).flatten(3), (pairs / 2 + turned * 1j - 1.0).abs()


TURNS = {
    "stored": lambda model, rows: model.turned[rows],
    "put together": lambda model, rows: torch.cat(model.turned.split([1, 3], 1)[::-1], 1).flip(1)[rows],
    "polar": lambda model, rows: torch.polar(torch.ones_like(model.angles[rows]), model.angles[rows]),
    "exponential": lambda model, rows: torch.exp(1j * model.angles[rows]),
    "conjugate": lambda model, rows: torch.complex(
        model.angles[rows].cos(), -model.angles[rows].sin()
    ).conj(),
}


def _program(model, *inputs, dynamic=None):
    return from_exported(torch.export.export(model, inputs, dynamic_shapes=dynamic)).exported


@pytest.mark.parametrize("name", TURNS)
def test_rotary_embeddings(name):
    """No complex number is left; results are the program's at other lengths and positions."""
    inputs = torch.randn(1, 3, 2, 8), torch.tensor([2])
    before = _program(_Rotated(TURNS[name]), *inputs, dynamic=({1: Dim("rows", min=2, max=16)}, None))
    after, (note,) = complex_numbers_as_pairs(before)
    assert note.code == "complex-as-pairs"
    values = [node.meta.get("val") for node in after.graph.nodes]
    assert not any(isinstance(v, torch.Tensor) and v.is_complex() for v in values)
    old, new = before.module(), after.module()
    for rows, position in ((3, 0), (16, 16), (2, 9)):
        given = torch.randn(1, rows, 2, 8), torch.tensor([position])
        for one, other in zip(new(*given), old(*given), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


RESULTS = {
    "a real term in more rows": lambda z, x: (torch.view_as_real(z[:1] + x), (z[:1] + x).imag),
    "parts in other rows": lambda _, x: torch.view_as_real(torch.complex(x[:1], x)),
    "real numbers made complex": lambda z, x: (x.to(torch.complex64) * z).imag,
    "transforms": lambda z, x: (torch.fft.rfft(x, dim=0).abs(), torch.fft.fft(z, norm="ortho").angle()),
    "transforms of two dimensions": lambda z, x: (
        torch.fft.fftn(x, dim=(0, 1)).real,
        torch.fft.ifft2(z).imag,
    ),
    "transforms there and back": lambda z, x: (
        *(torch.fft.irfft(torch.fft.rfft(x, dim=d) * 2, n=x.shape[d], dim=d) for d in (0, 1)),
        torch.fft.irfft2(z, s=(4, 5), norm="forward"),
    ),
    "a half made complex": lambda _, x: x.half().to(torch.complex64).abs(),
}


class _Computes(nn.Module):
    """Complex z and real x [4, 3]."""

    def __init__(self, result):
        super().__init__()
        self._result = result

    def forward(self, pairs, x):
        return self._result(torch.view_as_complex(pairs), x)


@pytest.mark.parametrize("name", RESULTS)
def test_real_operands(name):
    """Both parts have the sizes of the result, and real numbers no imaginary part."""
    inputs = torch.randn(4, 3, 2), torch.randn(4, 3)
    before = _program(_Computes(RESULTS[name]), *inputs)
    after, (note,) = complex_numbers_as_pairs(before)
    assert note.code == "complex-as-pairs"
    torch.testing.assert_close(after.module()(*inputs), before.module()(*inputs))


@pytest.mark.parametrize(
    "result",
    [
        lambda z, x: torch.add(z, z * x, alpha=2).real,
        lambda z, x: torch.sub(z, z * x, alpha=2).abs(),
        lambda z, x: torch.cat([z, x]).real,
    ],
)
def test_operands_that_are_not_known_stay(result):
    """A factor of a sum, and a real tensor in a row with complex ones."""
    before = _program(_Computes(result), torch.randn(4, 3, 2), torch.randn(4, 3))
    assert complex_numbers_as_pairs(before) == (before, ())


def test_what_is_not_known_stays():
    """A result that is complex, and a Fourier transform of many places."""

    class Complex(nn.Module):
        def forward(self, x):
            return torch.view_as_complex(x) * 2

    class Transformed(nn.Module):
        def forward(self, x):
            return torch.fft.rfft(x.repeat(1, 600)).abs()

    for model in (Complex(), Transformed()):
        before = _program(model, torch.randn(4, 2))
        assert complex_numbers_as_pairs(before) == (before, ())
