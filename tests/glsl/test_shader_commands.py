"""`vkfuse shader` as a user runs it."""

import json
import os
import subprocess
import sys

import pytest

from vkfuse.commands.shader import bench_options, variants_matching
from vkfuse.errors import VkfuseError
from vkfuse.glsl.bench import FLOAT_SCALES
from vkfuse.glsl.cases import CASES

RUN = """
import sys
from vkfuse.commands.shader import app
from vkfuse.errors import VkfuseError
try:
    app(sys.argv[1:], standalone_mode=False)
except VkfuseError as error:
    print(type(error).__name__, error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def shader(*arguments, environment=None, code=RUN):
    """Run a shader command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )


def test_list_is_the_manifest():
    """The list names 24 shaders; as JSON it is the manifest."""
    assert shader("list").stdout.endswith("24 shaders\n")
    assert len(json.loads(shader("list", "--format", "json").stdout)["shaders"]) == 24


def test_no_driver_is_said_so():
    """Without a driver the command says so, names a remedy, and ends with the code of bad input."""
    missing = {"VK_DRIVER_FILES": "/nowhere.json", "VK_ICD_FILENAMES": "/nowhere.json"}
    result = shader("check", environment=missing)
    assert result.returncode == 2
    assert "no Vulkan driver" in result.stderr
    assert "mesa-vulkan-drivers" in result.stderr


def test_no_package_is_said_so():
    """Without the optional package the command names the extra to install."""
    result = shader("check", code="import sys; sys.modules['vulkan'] = None" + RUN)
    assert result.returncode == 2
    assert "pip install 'vkfuse[vulkan]'" in result.stderr


def test_no_compiler_is_said_so():
    """Without glslc the build names the package to install."""
    result = shader("build", environment={"PATH": "/nowhere"})
    assert result.returncode == 2
    assert "apt install glslc" in result.stderr


def test_no_such_device(device):
    """A device number too high names the devices that there are."""
    result = shader("check", "--device", "99")
    assert result.returncode == 2
    assert device.info.name in result.stderr


def test_a_check_writes_its_reports(device, tmp_path):  # noqa: ARG001 - a driver is needed
    """Text on stdout, JSON in the file, nothing else on stdout."""
    path = tmp_path / "check.json"
    name = "embedding_q4gsw_buffer_float"
    result = shader("check", "--variant", name, "--report", str(path))
    assert result.returncode == 0
    cases = len(CASES)
    assert result.stdout.endswith(f"{cases} of {cases} lookups right, bit for bit\n")
    assert result.stderr == f"vkfuse: {name}\n"
    assert json.loads(path.read_text())["ok"] is True


def test_no_such_variant():
    """A pattern without a match is an error."""
    with pytest.raises(VkfuseError, match="no variant matches"):
        variants_matching("linear*")
    with pytest.raises(VkfuseError, match="no variant with float scales matches"):
        variants_matching("embedding_q4gsw_buffer_half", FLOAT_SCALES)


def test_columns_must_fit_the_groups(device):
    """Columns that the runtime refuses are an error before anything runs."""
    with pytest.raises(VkfuseError, match="48 columns"):
        bench_options(device.info, None, [48], 1)


def test_neighbours_must_fit_the_table(device):
    """More neighbouring blocks than the table has are an error before anything runs."""
    with pytest.raises(VkfuseError, match="no 9999999 blocks"):
        bench_options(device.info, None, None, 9999999)


def test_a_bench_of_one_variant(device):  # noqa: ARG001 - a driver is needed
    """One variant at one shape, with neighbouring rows: a row and the summary on stdout."""
    name = "embedding_q4gsw_float_scales_linear_weight_texture2d_buffer_half"
    result = shader(
        *("bench", "-q", "--format", "json", "--variant", name),
        *("--tokens", "8", "--embed-dim", "64", "--neighbours", "4"),
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert [row["variant"] for row in report["rows"]] == [name]
    assert report["options"]["neighbours"] == 4


def test_nothing_imports_torch():
    """The shader's package and commands stay without torch and ExecuTorch."""
    code = (
        "import sys, pkgutil, vkfuse.glsl, vkfuse.commands.shader\n"
        "for module in pkgutil.walk_packages(vkfuse.glsl.__path__, 'vkfuse.glsl.'): __import__(module.name)\n"
        "sys.exit(bool({'torch', 'executorch', 'torchao'} & sys.modules.keys()))"
    )
    assert shader(code=code).returncode == 0
