"""ExecuTorch imported without torch's compiler: the same tables, the same file."""

import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import torch
from executorch.exir.dialects import edge
from executorch.exir.dialects.edge import _ops
from ruamel.yaml import YAML
from torch._higher_order_ops.auto_functionalize import auto_functionalized
from torch.fx import Graph, GraphModule

from vkfuse.program import lighter

ROOT = Path(__file__).parents[2]
_MADE = """
import sys
from unittest import mock
from vkfuse.program import lighter
if sys.argv[1] == "as it comes":
    lighter._import = lambda *_, **__: None
    lighter._Compiled = __import__("ruamel.yaml").yaml.YAML
import pytest
import torch
from programs import LanguageModel, export, indices, quantize
import vkfuse
torch.manual_seed(0)
model = quantize(quantize(LanguageModel(128), torch.nn.Embedding), torch.nn.Linear)
report = vkfuse.optimize(export(model, indices(1, 7)), sys.argv[2], baseline="none").report
print("made", report.output.sha256, any(name in sys.modules for name in (lighter._PASSES, lighter._LOWERINGS)))
"""


def _made(how, folder):
    """The hash of a file, and whether the compiler was imported."""
    command = [sys.executable, "-c", _MADE, how, folder / "m.pte"]
    path = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    ran = subprocess.run(command, env=path, capture_output=True, text=True, check=True)
    _, sha256, compiler = ran.stdout.splitlines()[-1].split()
    return sha256, compiler == "True"


@pytest.mark.slow
def test_the_same_file_without_the_compiler(tmp_path):
    """Byte for byte, in processes of their own; as it comes ExecuTorch imports it."""
    (light, without), (plain, with_it) = (_made(how, tmp_path) for how in ("lighter", "as it comes"))
    assert (light, without, with_it) == (plain, False, True)


def test_the_same_types_of_operators():
    """What compiled code reads of edge.yaml is what ExecuTorch's own reader does."""
    text = (resources.files(edge) / "edge.yaml").read_text("utf-8")
    assert lighter._Compiled(typ="safe").load(text) == YAML(typ="safe").load(text)
    assert len(_ops._edge_dialect_info) > 100


def _graph(*, functional, unread):
    graph = Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.zeros(2)
    if unread:
        graph.get_attr("table")
    copied = (torch.ops.aten.copy_.default,)
    call = graph.call_function(auto_functionalized, copied, {"self": x, "src": x}) if functional else x
    graph.output((call,))
    return GraphModule({"table": torch.nn.Linear(1, 1)}, graph).graph


def test_what_has_to_be_done_is_done(monkeypatch):
    """The compiler's own function is called for a graph with something to do, and for no other."""
    called = []
    real = lighter.importlib.import_module

    def imported(name):
        called.append(name)
        return real(name)

    monkeypatch.setattr(lighter.importlib, "import_module", imported)
    lighter._decomposed(_graph(functional=False, unread=False))
    assert called == []
    graph = _graph(functional=False, unread=True)
    lighter._decomposed(graph)
    assert lighter._PASSES in called
    assert not graph.find_nodes(op="get_attr")


def test_a_module_that_asks_for_more_stays_as_it_comes(tmp_path, monkeypatch):
    """It is not imported with a stand-in that lacks what it wants, and nothing stands in for anything afterwards."""
    (tmp_path / "asks.py").write_text("from no_compiler import here, elsewhere\n")
    (tmp_path / "no_compiler.py").write_text("here, elsewhere = 1, 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    lighter._import("asks", "no_compiler", here=0)
    assert not {"asks", "no_compiler"} & {*sys.modules}
    lighter._import("asks", "no_compiler", here=0, elsewhere=0)
    assert sys.modules.pop("asks").elsewhere == 0
    assert "no_compiler" not in sys.modules
