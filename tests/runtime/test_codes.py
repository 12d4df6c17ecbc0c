"""The registry of codes: each documented, used, and with a source where only a run meets it."""

import re
from pathlib import Path

from vkfuse.runtime.codes import Code
from vkfuse.runtime.data import lines
from vkfuse.runtime.operators import OPERATORS

ROOT = Path(__file__).parents[2]
DEPARTS = {code for records in OPERATORS.values() for record in records for code in record.departs}


def test_the_table_is_the_registry():
    """docs/runtime.md has each code with its effect and meaning, and no other."""
    text = (ROOT / "docs" / "runtime.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (\w+) \| (.*) \|$", text, re.MULTILINE)
    assert rows == [(code.value, code.effect, code.meaning) for code in Code]


def test_every_code_is_used():
    """A code that nothing names is a fact that nobody can meet."""
    sources = "".join(
        path.read_text("utf-8") for path in (ROOT / "vkfuse").rglob("*.py") if path.name != "codes.py"
    )
    assert [code for code in Code if f"Code.{code.name}" not in sources] == []


def test_faults_name_their_source():
    """What is a fault, or departs from torch, says in which file it was read, or that it was measured."""
    sources = {line.split(" | ")[0]: "".join(line.split(" | ")[4:]) for line in lines("codes.txt")}
    structural = {Code.MISSING_CONSTANT, Code.NO_OUTPUT}
    facts = DEPARTS | {code for code in Code if code.effect != "note"} - structural
    assert [
        code for code in facts if not re.search(r"\.(cpp|h|glslh?|ya?ml)\b|measured|Vulkan", sources[code])
    ] == []


def test_kernels_note_what_a_record_says():
    """Each departure that verify's kernels note stands in the record of an operator."""
    kernels = "".join(path.read_text("utf-8") for path in (ROOT / "vkfuse/verify/vulkan").glob("*.py"))
    noted = {Code[name] for name in re.findall(r"note\(Code\.(\w+)\)", kernels)}
    assert noted == DEPARTS
