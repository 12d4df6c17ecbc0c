"""Files of other kinds are named, and what to give instead; a .pte never is."""

import io
import zipfile

import pytest

from vkfuse.errors import FormatError
from vkfuse.pte import read_pte
from vkfuse.pte.kinds import other_kind


def _zip(*names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            archive.writestr(name, b"x" * 99)
    return stream.getvalue()


def _bundled(files):
    """A bundled program as ExecuTorch writes it."""
    from executorch.devtools import BundledProgram  # noqa: PLC0415 - torch
    from executorch.devtools.bundled_program.serialize import (  # noqa: PLC0415 - torch
        serialize_from_bundled_program_to_flatbuffer,
    )

    program = BundledProgram(None, [], pte_file_path=str(files / "fused.pte"))
    return serialize_from_bundled_program_to_flatbuffer(program)


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (_bundled, r"a bundled program \(.bpte\)"),
        (lambda _: _zip("program.ptg", "program.safetensors"), r"a package of a native program \(.ptn\)"),
        (lambda _: b"\x10\0\0\0NPTG" + bytes(40), r"a package of a native program \(.ptn\)"),
        (lambda _: _zip("m/archive_format", "m/models/model.json"), r"an exported program \(.pt2\)"),
        (lambda _: _zip("anything"), "a zip archive"),
        (lambda _: b"GGUF" + bytes(40), "a GGUF file"),
    ],
)
def test_other_kinds_are_named(made, kind, files, tmp_path):
    """The error says what the file is, names it, and says what to give instead."""
    path = tmp_path / "model.pte"
    path.write_bytes(made(files))
    with pytest.raises(FormatError, match=rf"model\.pte: this is {kind}") as failure:
        read_pte(path)
    assert failure.value.hint


def test_external_data_is_named(files):
    """A .ptd in the place of a .pte."""
    with pytest.raises(FormatError, match=r"external data \(.ptd\)") as failure:
        read_pte(files / "external.ptd")
    assert "--ptd" in failure.value.hint


def test_a_pte_is_none_of_them(files):
    """No file that ExecuTorch writes is taken for another kind, and no bytes are a crash."""
    for path in files.glob("*.pte"):
        assert other_kind(memoryview(path.read_bytes())) is None
    for size in range(9):
        assert other_kind(memoryview(b"PK\x03\x04BP08"[:size])) in {
            None,
            other_kind(memoryview(b"PK\x03\x04")),
        }
