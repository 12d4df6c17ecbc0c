"""What the tests of several folders share. Torch is imported where it is asked for, so that light tests stay light."""

from pathlib import Path

import pytest
from hypothesis import settings

from vkfuse.pages import seldom_collected

settings.register_profile("vkfuse", deadline=None)  # cores are shared
settings.load_profile("vkfuse")


@pytest.fixture(scope="session", autouse=True)
def collector():
    """Python looks for garbage as seldom as in a run: exporting programs leaves much, and most of it stays."""
    with seldom_collected():
        yield


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """A written .pt2 of a 4-bit embedding [100, 64] looked up with indices [2, 7]."""
    import torch  # noqa: PLC0415 - seconds
    from programs import lookup  # noqa: PLC0415 - imports torchao

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    torch.export.save(lookup(2, 7)(), path)
    return path


@pytest.fixture(scope="session")
def files(request):
    """Directory of the files that tests/pte/build_files.py writes."""
    from built import build  # noqa: PLC0415 - only where it is asked for

    return build(Path(request.config.cache.mkdir("vkfuse-pte")))


@pytest.fixture(scope="session")
def backends(request):
    """Directory of the files that tests/pte/build_backends.py writes."""
    from built import BACKENDS, build  # noqa: PLC0415 - only where it is asked for

    return build(Path(request.config.cache.mkdir("vkfuse-pte")), BACKENDS)
