"""Kernels of ExecuTorch's that end the process where they refuse are never run in it."""

import pytest
import torch

import vkfuse
from vkfuse.program.operators import register_operators
from vkfuse.pte.place import Place
from vkfuse.verify.errors import CannotVerifyError
from vkfuse.verify.kernels import find_kernel


def test_qparams_of_a_token():
    """A scale and a zero point a row, as the operator says, from out arguments of any size."""
    x = torch.randn(2, 3, 16)
    kernel = find_kernel("quantized_decomposed::choose_qparams_per_token_asymmetric.out", Place("forward"))
    empty = torch.empty(0)
    scale, zero = kernel.run([x, torch.int8, empty, empty])
    want = torch.ops.quantized_decomposed.choose_qparams_per_token_asymmetric.default(x, torch.int8)
    torch.testing.assert_close((scale, zero), tuple(want), rtol=0, atol=0)
    assert kernel.outputs == (2, 3)


@pytest.mark.parametrize(
    "name", ["llama::custom_sdpa.out", "quantized_decomposed::embedding_byte.unheard_of"]
)
def test_what_would_end_the_process(name):
    """An error, whatever library registered the operator."""
    with pytest.raises(CannotVerifyError):
        find_kernel(name, Place("forward"))


def test_remainders_have_the_sign_of_c():
    """Of integers, as ExecuTorch's kernel on the 1.5.0 runtime gave them; of floats, torch's."""
    kernel = find_kernel("aten::remainder.Scalar_out", Place("forward"))
    (whole,) = kernel.run([torch.tensor([-65, -1, 0, 65]), 64, torch.empty(0)])
    (real,) = kernel.run([torch.tensor([-1.5]), 64, torch.empty(0)])
    assert (whole.tolist(), real.tolist()) == ([-1, -1, 0, 1], [62.5])


def test_windows_of_an_adaptive_pool():
    """Those of 16,385 to 24,577 that ExecuTorch's kernel on the 1.5.0 runtime took from elsewhere are undefined."""
    kernel = find_kernel("aten::_adaptive_avg_pool2d.out", Place("forward"))
    (some,) = kernel.run([torch.ones(1, 1, 3, 16385), [2, 24577], torch.empty(0)])
    (small,) = kernel.run([torch.ones(1, 1, 5, 2048), [3, 3071], torch.empty(0)])
    assert some.isnan().sum(-1).tolist() == [[[12, 12]]]
    assert bool(small.eq(1).all())


@pytest.mark.parametrize("decays", [(1, 2, 5), (1, 2, 5, 4)])
def test_gated_delta_rule(decays):
    """Against ExecuTorch's own kernel: two queries a key, a decay a row or one for each of its columns."""
    register_operators()
    kernel = find_kernel("llama::gated_delta_rule.out", Place("forward"))
    query, key, value, state = (
        torch.randn(1, *sizes) for sizes in ((4, 5, 4), (2, 5, 4), (2, 5, 8), (2, 4, 8))
    )
    given = [query, key, value, torch.rand(decays), torch.rand(1, 2, 5), state]
    want = torch.ops.llama.gated_delta_rule(*given)
    torch.testing.assert_close(kernel.run([*given, None, None]), tuple(want))


def test_quotients_of_infinities(tmp_path):
    """Rounded down they are infinite on the GPU, as the 1.5.0 runtime gave, and NaN in torch: there is no such file."""

    class Halves(torch.nn.Module):
        def forward(self, x):
            return x // 2.0

    program = torch.export.export(Halves(), (torch.tensor([[torch.inf, 3.0, -torch.inf, -3.0]]),))
    with pytest.raises(vkfuse.CheckFailedError):
        vkfuse.optimize(program, tmp_path / "model.pte", baseline="none")
