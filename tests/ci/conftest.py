"""The real files of tests/pte."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_SPEC = spec_from_file_location("pte_files", Path(__file__).parent.parent / "pte" / "conftest.py")
_PTE = module_from_spec(_SPEC)
_SPEC.loader.exec_module(_PTE)
files = _PTE.files
