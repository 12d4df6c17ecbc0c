"""The documents say what the commands and the log say."""

import json
import re
import runpy
from pathlib import Path

from typer.main import get_command

from vkfuse.commands.shader import app
from vkfuse.glsl.bench import FLOAT_SCALES
from vkfuse.glsl.cases import CASES
from vkfuse.glsl.manifest import digest, shipped_spirv, template_folder
from vkfuse.glsl.variants import VARIANTS

ROOT = Path(__file__).parents[2]


def test_every_command_is_documented_and_exists():
    """docs/shader.md names exactly the commands that there are."""
    documented = set(re.findall(r"vkfuse shader (\w+)", (ROOT / "docs/shader.md").read_text()))
    assert documented == set(get_command(app).commands)


def test_the_tables_are_made_from_the_log():
    """The benchmark's tables are what the script makes from the kept JSON."""
    script = runpy.run_path(str(ROOT / "benchmarks/shader_table.py"))
    log = json.loads((ROOT / "benchmarks/shader/h100.json").read_text())
    readme = (ROOT / "benchmarks/shader/README.md").read_text()
    assert script["table"](log) in readme
    assert script["texture_table"](log) in readme


def test_the_shader_is_nowhere_slower_than_the_runtimes_mapping():
    """At every shape of the kept log, in a stream and alone; and where memory does not forbid it, many times faster."""
    log = json.loads((ROOT / "benchmarks/shader/h100.json").read_text())
    assert all(min(row["speedup"], row["speedup_alone"]) > 1 for row in log["rows"])
    assert all(
        row["speedup"] > 5 and (row["tokens"] < 4096 or row["share_of_copy"] > 0.6)
        for row in log["rows"]
        if row["tokens"] >= 512
        and row["embed_dim"] >= 2048
        and "_buffer_" in row["variant"].replace("linear_weight_buffer", "")
        and "texture2d" not in row["variant"]
    )


def test_the_logs_are_of_a_gpu_and_whole():
    """They cover every layout, storage and dtype at every shape, all lookups were right, and with these very shaders."""
    log = json.loads((ROOT / "benchmarks/shader/h100.json").read_text())
    check = (ROOT / "benchmarks/shader/h100-check.txt").read_text()
    options, lookups = log["options"], len(VARIANTS) * len(CASES)
    assert log["device"]["kind"] == "discrete"
    assert len(log["rows"]) == 12 * len(options["tokens"]) * len(options["embed_dims"])
    assert log["shaders"] == digest(shipped_spirv(variant) for variant in FLOAT_SCALES)
    assert f"shaders: sha256 {digest(shipped_spirv(variant) for variant in VARIANTS)}\n" in check
    assert check.endswith(f"{lookups} of {lookups} lookups right, bit for bit\n")


def test_the_template_includes_nothing():
    """The template is self-contained: ExecuTorch's includes do not ship in its wheel."""
    assert "#include" not in (template_folder() / "embedding_q4gsw.glsl").read_text()
