"""The readers and reports stay light: no torch, no executorch, no numpy."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "torchao", "executorch", "numpy")


@pytest.mark.parametrize(
    "modules", ["vkfuse.pte, vkfuse.lint, vkfuse.measure.ledger", "vkfuse.report.serial"]
)
def test_heavy_packages_are_not_imported(modules):
    """Importing in a fresh interpreter loads none of the packages that a slim image lacks."""
    code = f"import {modules}, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
