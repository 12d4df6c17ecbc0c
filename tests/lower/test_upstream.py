"""What vkfuse changes in ExecuTorch is changed together and put back together."""

import executorch.backends.vulkan.op_registry as registry
import pytest
from executorch.backends.transforms.view_copy_to_squeeze_unsqueeze import ViewCopyToSqueezeUnsqueezePass
from executorch.backends.vulkan import patterns

from vkfuse.lower import upstream


def _state():
    """What is patched, as it stands."""
    mends = (*upstream._MENDS, *upstream._shortcuts())
    owners = {(owner.__name__, name): getattr(owner, name) for owner, name, _ in mends}
    shaders = upstream.serializer.serialize_custom_shaders
    return owners, shaders, [*registry.vulkan_supported_ops.items()], [*patterns.fusable_patterns.items()]


def _fail():
    with upstream.adjusted_upstream({"rms_norm"}, lambda *_: b""):
        inside = _state()
        mended = [*inside[0].values()][: len(upstream._MENDS)]
        assert all(now is mend for now, (_, _, mend) in zip(mended, upstream._MENDS, strict=True))
        assert [name for name, _ in inside[3]] == ["rms_norm"]
        raise ZeroDivisionError


def test_all_is_put_back_after_an_error():
    """Functions, registry entries and fusions are the same objects again, in the same order."""
    before = _state()
    with pytest.raises(ZeroDivisionError):
        _fail()
    after = _state()
    assert after == before


def test_views_that_add_more_than_one_dimension():
    """Upstream takes [8, 8, 1] viewed as [1, 8, 1, 8] for an unsqueeze; one dimension that is added is found as before."""
    views = {
        ((8, 8, 1), (1, 8, 1, 8)): None,
        ((8, 2), (8, 1, 2)): 1,
        ((8, 2), (8, 2, 1)): -1,
        ((8, 2), (4, 2, 2)): None,
    }
    with upstream.adjusted_upstream(()):
        found = {of: ViewCopyToSqueezeUnsqueezePass().find_unsqueeze_dim(*of) for of in views}
    assert found == views
