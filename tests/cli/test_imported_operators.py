"""Operators that a .pt2 names: ExecuTorch's own are known, a user's come with --import, others are named."""

import sys

import pytest
import torch
from programs import LanguageModel, export, indices, quantize
from torch import nn

MODULE = """
import torch

lib = torch.library.Library("mine", "DEF")
lib.define("twice(Tensor x) -> Tensor")
lib.define("twice.out(Tensor x, *, Tensor(a!) out) -> Tensor(a!)")


@torch.library.impl(lib, "twice", "CompositeExplicitAutograd")
def twice(x):
    return x * 2


@torch.library.impl(lib, "twice.out", "CompositeExplicitAutograd")
def twice_out(x, *, out):
    return torch.mul(x, 2, out=out)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a module that registers an operator, a program that calls it, and one of another operator."""
    made = tmp_path_factory.mktemp("own")
    (made / "own_operators.py").write_text(MODULE)
    (made / "broken.py").write_text("raise RuntimeError('a fault of its own')")
    namespace = {}
    exec(MODULE, namespace)  # noqa: S102 - the module as it is written

    class Doubled(LanguageModel):
        def forward(self, tokens):
            return self.head(torch.ops.mine.twice(self.table(tokens)))

    program = export(quantize(Doubled(), nn.Embedding), indices(1, 8))
    torch.export.save(program, made / "model.pt2")
    namespace["lib"]._destroy()
    return made


def _run(start, folder, *arguments):
    process = start(*arguments, cwd=folder)
    out, err = process.communicate(timeout=300)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("trusted", [(), ("--allow-pickle",)])
def test_an_unknown_operator_is_named_with_its_remedy(start, folder, trusted):
    """Exit code 2, the operator and --import, whether the file is looked through or trusted."""
    code, _, err = _run(start, folder, "optimize", "model.pt2", "-o", "out.pte", *trusted)
    assert code == 2, err
    assert "'torch.ops.mine.twice.default'" in err
    assert "--import MODULE" in err


@pytest.mark.parametrize(
    ("module", "words"), [("nowhere", "No module named"), ("broken", "a fault of its own")]
)
def test_a_module_that_cannot_be_imported(vkfuse, folder, module, words, monkeypatch):
    """Exit code 2, the module and why."""
    monkeypatch.chdir(folder)
    ran = vkfuse("inspect", "model.pt2", "--import", module)
    assert ran.code == 2, ran.err
    assert f"--import {module}" in ran.err
    assert words in ran.err


def test_an_imported_operator_runs_on_the_cpu(start, folder):
    """The file is written and verified, and the report says that the application needs the kernel."""
    given = ("optimize", "model.pt2", "-o", "out.pte", "--baseline", "none", "--import", "own_operators")
    code, out, err = _run(start, folder, *given)
    assert code == 0, err
    assert "needs-own-kernel" in out
    assert "Verified    yes" in out
    assert (folder / "out.pte").stat().st_size > 0


def test_an_import_admits_nothing_else(folder, monkeypatch):
    """What torch has registered but an untrusted program may not call stays forbidden after an import."""
    from vkfuse.program.imports import import_modules  # noqa: PLC0415 - after torch
    from vkfuse.program.names import is_allowed_operator  # noqa: PLC0415

    monkeypatch.chdir(folder)
    import_modules(["own_operators"])
    sys.modules["own_operators"].lib._destroy()
    assert is_allowed_operator("torch.ops.mine.twice.default")
    forbidden = ("aten.from_file.default", "aten.save.default", "prim.Print.default", "mine.other.default")
    assert not any(is_allowed_operator(f"torch.ops.{name}") for name in forbidden)
