"""Files that nobody wrote on purpose: any bytes give a verdict or a clear error."""

import faults
import pytest
import stock
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vkfuse.errors import VkfuseError
from vkfuse.pte import parse_pte, vulkan_graphs
from vkfuse.pte.place import Place
from vkfuse.verify.errors import CannotVerifyError, ExecutionError
from vkfuse.verify.kernels import find_kernel
from vkfuse.verify.verify import VerifyOptions, verify_file

_WORDS = st.sampled_from([0, 1, 2, 2**16, 2**24, 2**30, 2**31 - 1, 2**31, 2**32 - 1])
_LONGS = st.sampled_from([0, 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**64 - 1])
_PATCH = st.one_of(
    st.binary(min_size=1, max_size=1),
    _WORDS.map(lambda n: n.to_bytes(4, "little")),
    _LONGS.map(lambda n: n.to_bytes(8, "little")),
)
_PATCHES = st.lists(
    st.tuples(st.integers(0, 2), st.floats(0, 1, exclude_max=True), _PATCH), min_size=1, max_size=4
)


def _regions(data):
    """Where the program's and the delegates' flatbuffers stand; twice the delegates', which hold the graphs."""
    pte = parse_pte(data)
    delegate = pte.methods[0].delegates[0].processed_at
    graph = vulkan_graphs(pte)[Place(pte.methods[0].name, 0)]
    inside = (delegate.offset, delegate.offset + graph.flatbuffer_at.end)
    return [(pte.program_at.offset, pte.program_at.end), inside, inside]


@pytest.mark.parametrize("name", ["lookup-dynamic", "8da4w"])
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patches=_PATCHES)
def test_changed_bytes_end_in_a_verdict_or_an_error(name, lowered, patches):
    """Offsets, counts, sizes and indices set to anything: no crash, no other exception, no endless run."""
    file = lowered(name)
    regions, data = _regions(file.data), bytearray(file.data)
    for region, share, patch in patches:
        low, high = regions[region]
        at = low + int((high - low) * share)
        data[at : at + len(patch)] = patch[: len(data) - at]
    try:
        verdict = verify_file(parse_pte(bytes(data)), file.exported, VerifyOptions(seeds=0))
    except VkfuseError:
        return  # the clear error that is asked for; anything else fails the test
    assert verdict.ok or verdict.message


def test_a_result_beyond_measure_is_refused_before_it_is_made(lowered):
    """A group size, a view or a repeat can ask for terabytes; what no device holds is not computed."""
    file = lowered("linear-one-matrix")
    pte = parse_pte(file.data)
    (graph,) = vulkan_graphs(pte).values()
    assert any(call.name == stock.LINEAR for call in graph.chain)
    huge = faults.with_integer(file.data, stock.LINEAR, 3, 1 << 30)
    assert verify_file(parse_pte(huge), file.exported, VerifyOptions(seeds=0)).status in {
        "differs",
        "fails",
        "not-loadable",
    }


def test_only_kernels_of_the_runtime_run():
    """A file cannot name any torch operator: one that opens files has no kernel, and is none here."""
    for name in ("aten::from_file.out", "aten::from_file", "prim::device", "aten::empty.memory_format"):
        with pytest.raises(CannotVerifyError, match=name):
            find_kernel(name, "test")


def test_growth_is_bounded():
    """A kernel asked for a terabyte says so instead of making it."""
    kernel = find_kernel("aten::full.out", "test")
    with pytest.raises(ValueError, match="bytes"):
        kernel.run([[1 << 20, 1 << 20], 1.0, torch.empty(0)])
    assert ExecutionError("op", "here", "why").exit_code == 1
