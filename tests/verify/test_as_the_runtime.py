"""What verify knows of ExecuTorch that torch's operators of the same names do not do."""

import io

import pytest
import torch
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.exir.passes import _quant_patterns_and_replacements  # noqa: F401 - registers quantized_decomposed's lookups
from torch import nn
from torch.export import Dim, export

from vkfuse.pipeline import optimize
from vkfuse.pte import parse_pte
from vkfuse.pte.place import Place
from vkfuse.quiet import quiet
from vkfuse.verify.domain import domain_of
from vkfuse.verify.errors import ExecutionError
from vkfuse.verify.halves import is_summed_in_half, product_in_half, variance
from vkfuse.verify.kernels import find_kernel
from vkfuse.verify.memory import refused_copy, refused_order
from vkfuse.verify.session import run_file
from vkfuse.verify.verify import VerifyOptions, verify_file

IN_ORDER, CHANNELS_LAST, ROW = (0, 1, 2, 3), (0, 2, 3, 1), (0,)


@pytest.mark.parametrize(
    ("name", "orders", "refused"),
    [
        ("aten::_native_batch_norm_legit_no_training.out", [CHANNELS_LAST, ROW, CHANNELS_LAST], True),
        ("aten::logical_xor.out", [CHANNELS_LAST, IN_ORDER, CHANNELS_LAST], True),
        ("aten::logical_xor.out", [CHANNELS_LAST, ROW, CHANNELS_LAST], True),
        ("aten::convolution.out", [CHANNELS_LAST, CHANNELS_LAST, ROW, CHANNELS_LAST], False),
        ("aten::ne.Tensor_out", [CHANNELS_LAST, IN_ORDER, CHANNELS_LAST], True),
        ("aten::logical_xor.out", [CHANNELS_LAST, CHANNELS_LAST, CHANNELS_LAST], False),
        ("aten::_native_batch_norm_legit_no_training.out", [IN_ORDER, ROW, IN_ORDER], False),
        ("aten::mean.out", [CHANNELS_LAST, IN_ORDER], True),
        ("aten::add.out", [CHANNELS_LAST, CHANNELS_LAST], False),
        ("aten::add.out", [CHANNELS_LAST, IN_ORDER], True),
        ("dim_order_ops::_clone_dim_order.out", [CHANNELS_LAST, IN_ORDER], False),
    ],
)
def test_orders_of_dimensions(name, orders, refused):
    """A CPU kernel takes the default order only, one order, vectors' too, or any."""
    assert bool(refused_order(name, orders)) == refused


@pytest.mark.parametrize(
    ("packet", "bits"), [("embedding_byte", 8), ("embedding_4bit", 4), ("embedding_2bit", 2)]
)
@pytest.mark.parametrize("zeros", [False, True])
def test_lookups_of_quantized_decomposed(packet, bits, zeros):
    """The kernel's own arithmetic agrees with the operator that ExecuTorch defines in Python."""
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    torch.manual_seed(0)
    weight = torch.randint(low, high + 1, (9, 16), dtype=torch.int8) if bits == 8 else None
    weight = torch.randint(0, 256, (9, 16 * bits // 8), dtype=torch.uint8) if weight is None else weight
    scales = torch.rand(9, 2)
    points = torch.randint(low, high, (9, 2)).float() if zeros else None
    indices = torch.tensor([[0, 8], [3, 3]])
    operator = getattr(torch.ops.quantized_decomposed, packet).default
    (got,) = find_kernel(f"quantized_decomposed::{packet}.out", "here").run(
        [weight, scales, points, low, high, indices, None]
    )
    torch.testing.assert_close(got, operator(weight, scales, points, low, high, indices))


class _Squeezed(nn.Module):
    """At a length of one the program itself drops the dimension."""

    def forward(self, x):
        return x.squeeze(0) * 2


def _lowered(program, partitioner=()):
    with quiet():
        manager = to_edge_transform_and_lower(program, partitioner=[*partitioner]).to_executorch()
    stream = io.BytesIO()
    manager.write_to_file(stream)
    return parse_pte(stream.getvalue())


def _program(module, x, least, most):
    return export(module, (x,), dynamic_shapes=({0: Dim("n", min=least, max=most)},))


def test_lengths_that_a_program_does_not_take():
    """One at which it raises, or returns other dimensions than it says, is no length of it; the next is tried."""
    squeezed = _program(_Squeezed(), torch.randn(5, 3), 1, 8)
    verdict = verify_file(_lowered(squeezed), squeezed)
    assert verdict.status == "same"
    assert all(
        left.startswith("random") and "1 dimensions, 2 in the program" in left for left in verdict.skipped
    )
    assert "shortest" in {run.label for run in verdict.runs}


def test_a_file_that_takes_less():
    """A shorter bound than the program's fails, though every shorter input is right."""
    x = torch.randn(5, 3)
    file = _lowered(_program(_Squeezed(), x, 2, 8))
    assert verify_file(file, _program(_Squeezed(), x, 2, 8)).ok
    verdict = verify_file(file, _program(_Squeezed(), x, 2, 16))
    assert verdict.status == "fails"
    assert "may be 16 long in dimension 0, of the file only 8" in verdict.message


class _Stacks(nn.Module):
    def forward(self, x, y):
        return torch.stack([x, y[..., 0]])


def test_a_size_of_two_inputs():
    """Inputs of one dynamic size, for which torch had a symbol each, are drawn with equal ones."""
    size = Dim("n", min=2, max=8)
    program = export(
        _Stacks(), (torch.randn(5, 4), torch.randn(5, 4, 3)), dynamic_shapes=({1: size}, {1: size})
    )
    (least_and_most,) = domain_of(program, ()).bounds.values()
    assert least_and_most == (2, 8)


def test_a_size_that_a_lowering_takes_for_known():
    """What torch makes of a symbol while it lowers narrows the file, and not what the program said before."""
    program = _program(_Squeezed(), torch.randn(2, 3), 2, 8)
    (given,) = program.graph.find_nodes(op="placeholder")
    assert given.meta["val"].shape[0] == 2  # as a guard does, from the example
    assert given.meta["val"].shape[0].node.expr.is_number
    verdict = verify_file(_lowered(program), program)
    assert verdict.status == "fails"
    assert "may be 8 long in dimension 0, of the file only 2" in verdict.message


class _Convolves(nn.Module):
    """`function` of x and a weight, which twice `scale` makes no constant where it is an input."""

    def __init__(self, function, *sizes):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(sizes))
        self._function = function

    def forward(self, x, scale):
        return self._function(x, self.weight, scale)


_F = nn.functional
_KERNEL, _POINT, _VOLUME = (4, 4, 3, 3), (4, 4, 1, 1), (2, 1, 1, 3, 3)
CONVOLUTIONS = {
    "valid": (lambda x, w, _: _F.conv2d(x, w, padding="valid"), _KERNEL, "convolution-sizes"),
    "valid, of a point": (lambda x, w, _: _F.conv2d(x, w, padding="valid"), _POINT, "convolution-sizes"),
    "dilated": (lambda x, w, _: _F.conv2d(x, w, dilation=2), _KERNEL, ""),
    "both": (lambda x, w, _: _F.conv_transpose2d(x, w, dilation=2), _KERNEL, "convolution-sizes"),
    "weight": (lambda x, w, scale: _F.conv2d(x, w * scale[:, None, None, None]), _KERNEL, "not-a-constant"),
    "bias": (_F.conv2d, _KERNEL, "not-a-constant"),
    "volume": (lambda x, w, _: _F.conv3d(x[None], w), _VOLUME, "no volumes"),
}
_STATUS = {"": "same", "no volumes": "fails"}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name):
    """What a delegate and the CPU's kernel refuse of ExecuTorch's own lowering (measured)."""
    function, sizes, says = CONVOLUTIONS[name]
    program = export(_Convolves(function, *sizes), (torch.randn(1, 4, 9, 9), torch.randn(4)))
    verdict = verify_file(_lowered(program, [VulkanPartitioner()]), program)
    assert verdict.status == _STATUS.get(says, "not-loadable")
    assert says in " ".join([verdict.message, *(finding.code for finding in verdict.findings)])


def test_sums_in_half():
    """Sums of halves stop growing where a term is half a step of them: in buffers and portable kernels."""
    torch.manual_seed(0)
    rows, columns = torch.rand(3, 4096).half(), torch.rand(4096, 8).half()
    got = product_in_half(rows, columns, fused=True)
    assert abs(got[0, 0].item() - 964) <= 1  # a real runtime's; 1037 in float32
    for fused in (True, False):
        assert product_in_half(torch.ones_like(rows), torch.ones_like(columns), fused=fused).eq(2048).all()
        several = product_in_half(torch.ones(2, 3, 600).half(), torch.ones(2, 600, 4).half(), fused=fused)
        assert several.shape == (2, 3, 4)
        assert several.eq(600).all()
    assert is_summed_in_half(rows, columns)
    assert not is_summed_in_half(rows.float(), columns.float())


class _Gram(nn.Module):
    def forward(self, x):
        return x @ x.t()


@pytest.mark.parametrize(("columns", "status"), [(4096, "differs"), (600, "same")])
def test_half_products_on_the_cpu(columns, status):
    """The portable kernel's sum of 4,096 ones is 2,048, where torch's is 4,096."""
    program = export(_Gram(), (torch.ones(2, columns, dtype=torch.float16),))
    assert verify_file(_lowered(program), program).status == status


class _Softmax(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self._dim = dim

    def forward(self, x):
        return torch.log_softmax(torch.relu(x) - 200, self._dim)


@pytest.mark.parametrize(
    ("shape", "dim", "given", "off"),
    [
        ((2, 3, 128), 0, 60.0, 53.8),
        ((3, 2, 8), 0, 60.0, 52.9),
        ((2, 3, 8), 1, 60.0, 53.1),
        ((2, 3, 8), 1, 150.0, 0.0),
        ((5, 3, 8), 0, 60.0, 0.0),
        ((1, 4, 2), 2, 60.0, 0.0),
    ],
)
def test_short_softmax_from_zero(shape, dim, given, off, tmp_path):
    """Fewer than four values across texels, all far below zero: as far off as a real runtime was."""
    torch.manual_seed(0)
    x, path = torch.rand(shape) * 4 + given, tmp_path / "model.pte"
    program = export(_Softmax(dim), (x,))
    optimize(program, path, baseline="none", verify=False)
    verdict = verify_file(path, program, VerifyOptions(seeds=0))
    assert (verdict.status, [each.code for each in verdict.applied]) == (
        ("differs", ["short-softmax-from-zero"]) if off else ("same", [])
    )
    assert abs(verdict.runs[0].outputs[0].max_abs - off) < 1.5  # which values were drawn


@pytest.mark.parametrize(
    ("asked", "source", "target", "refused"),
    [
        ([0, 2, 3, 1], IN_ORDER, CHANNELS_LAST, False),
        ([0, 2, 3, 1], IN_ORDER, (0, 2, 1, 3), True),
        (None, IN_ORDER, IN_ORDER, False),
        (None, CHANNELS_LAST, IN_ORDER, True),
    ],
)
def test_copies_into_an_order(asked, source, target, refused):
    """The file gives the order of a copy twice, and the kernel takes none that differ (measured with [1, 1, 31, 2])."""
    assert bool(refused_copy("dim_order_ops::_clone_dim_order.out", asked, source, target)) == refused
    assert not refused_copy("aten::add.out", asked, source, target)


class _Nothing(nn.Module):
    def forward(self, x):
        return x * 2, None


def test_results_that_are_none():
    """They are equal to None and to nothing else."""
    program = export(_Nothing(), (torch.randn(3),))
    verdict = verify_file(_lowered(program), program)
    assert verdict.ok
    assert [output.dtype for output in verdict.runs[0].outputs] == ["float32", "none"]


class _Start(nn.Module):
    def forward(self, x, start: int):
        return x * start


def test_numbers_as_inputs():
    """The runtime takes the number that the file says; one that may change it says nothing of, and takes none."""
    x = torch.randn(3)
    fixed = run_file(_lowered(export(_Start(), (x, 5))))
    torch.testing.assert_close(fixed((x, 5))[0], x * 5)
    with pytest.raises(ExecutionError, match="input 1 is 6; the file says 5"):
        fixed((x, 6))
    changing = export(_Start(), (x, 5), dynamic_shapes={"x": None, "start": Dim.DYNAMIC})
    verdict = verify_file(_lowered(changing), changing)
    assert (verdict.status, "the file says None" in verdict.message) == ("fails", True)


@pytest.mark.parametrize(("dtype", "measured"), [(torch.float16, 0.2354), (torch.bfloat16, 0.0294)])
def test_variances_in_half(dtype, measured):
    """The CPU's kernel sums squares in the type of its output, and stops growing: of 8,704 ones and less ones."""
    x = torch.ones(8, 1088, dtype=dtype)
    x[:, ::2] = -1
    (got,) = find_kernel("aten::var.correction_out", Place("forward")).run([x, None, 1, False, None])
    assert float(got) == pytest.approx(measured, abs=1e-4)
    assert float(variance(x.float(), [0, 1], 1, keepdim=True)) == pytest.approx(8704 / 8703)
    assert variance(x, [1], 1, keepdim=True).shape == (8, 1)
