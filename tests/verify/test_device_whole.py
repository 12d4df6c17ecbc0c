"""The whole file on a device, in a child process: by a stand-in for ExecuTorch's runtime, by the real one where it is."""

import textwrap

import pytest
import torch
from executorch.extension.pybindings import portable_lib
from programs import export
from torch import nn

from vkfuse.pipeline import optimize
from vkfuse.verify.device_process import BACKEND
from vkfuse.verify.verify import VerifyOptions, verify_file
from vkfuse.verify.whole import NO_BACKEND

# The interface of executorch.runtime as far as it is used; what it does with a method is a line of the test.
_RUNTIME = """
import os
from types import SimpleNamespace

class Runtime:
    backend_registry = SimpleNamespace(
        registered_backend_names=[{backends}], is_available=lambda name: name in [{backends}]
    )

    @staticmethod
    def get():
        return Runtime()

    def load_program(self, path):
        assert path.read_bytes()[4:8] == b"ET12"
        return self

    def load_method(self, name):
        assert name == "forward"
        return self

    def execute(self, inputs):
        (x,) = inputs
        {does}
"""


class _Twice(nn.Module):
    def forward(self, x):
        return x * 2


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """A program, and vkfuse's file of it."""
    program = export(_Twice(), torch.randn(3, 5))
    path = tmp_path_factory.mktemp("twice") / "model.pte"
    optimize(program, path, baseline="none", verify=False)
    return program, path


@pytest.fixture
def on_stand_in(twice, tmp_path, monkeypatch):
    """The verdict where ExecuTorch's runtime does this."""

    def verdict(does, backends=f"'{BACKEND}'"):
        package = tmp_path / "executorch" / "runtime"
        package.mkdir(parents=True)
        (package.parent / "__init__.py").touch()
        text = textwrap.dedent(_RUNTIME).format(does=does, backends=backends)
        (package / "__init__.py").write_text(text, "utf-8")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
        program, path = twice
        return verify_file(path, program, VerifyOptions(seeds=1, device=True))

    return verdict


@pytest.mark.parametrize(
    ("does", "status", "message"),
    [
        ("return [x * 2]", "same", ""),
        ("return [x * 2 + 1]", "differs", "on the device output 0 differs on example: 1 absolute"),
        ("return [x.half() * 2]", "differs", "on the device output 0 differs on example: inf"),
        ("os.abort()", "fails", "the device does not run the file: the process ended with signal SIGABRT"),
        (
            "raise RuntimeError('0x20')",
            "fails",
            "the device does not run the file: RuntimeError: 0x20 (on example)",
        ),
        ("os._exit(0)", "fails", "the process ended without a word"),
    ],
)
def test_what_the_runtime_does_is_the_verdict(does, status, message, on_stand_in):
    """Right, wrong, of another type, aborted, refused: each is said, and the tool goes on."""
    verdict = on_stand_in(does)
    assert (verdict.status, message in verdict.message) == (status, True)
    labels = [run.label for run in verdict.runs] if status != "fails" else []
    assert [run.label for run in verdict.device_runs] == labels


def test_without_the_backend(on_stand_in):
    """An ExecuTorch that was built without it says so in what was skipped, with the option to build it."""
    verdict = on_stand_in("return [x * 2]", backends="'XnnpackBackend'")
    assert (verdict.status, verdict.device_runs) == ("same", ())
    assert NO_BACKEND in verdict.skipped


@pytest.mark.skipif(
    BACKEND not in portable_lib._get_registered_backend_names(),
    reason="ExecuTorch built without Vulkan",
)
def test_on_the_real_runtime(twice):
    """Where the installed ExecuTorch has the backend, it runs the file."""
    program, path = twice
    verdict = verify_file(path, program, VerifyOptions(seeds=1, device=True))
    assert verdict.ok
    assert [run.label for run in verdict.device_runs] == [run.label for run in verdict.runs]
