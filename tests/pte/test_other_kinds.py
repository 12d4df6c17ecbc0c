"""Files of other kinds are named, and what to give instead; a .pte never is."""

import bz2
import gzip
import io
import lzma
import pickle
import zipfile

import pytest

from vkfuse.errors import FormatError, InputError
from vkfuse.program.check import open_checked
from vkfuse.pte import read_pte
from vkfuse.pte.kinds import other_kind
from vkfuse.pte.ptd import read_ptd
from vkfuse.pte.reader import given_as_pte


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


_HEADER = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
OTHERS = (  # what people have in the place of a model, and what it is
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "a git-LFS pointer"),
    (gzip.compress(b"model"), "a gzip file"),
    (bz2.compress(b"model"), "a bzip2 file"),
    (lzma.compress(b"model"), "an xz file"),
    (b"\x28\xb5\x2f\xfd" + bytes(20), "a zstd file"),
    (bytes(257) + b"ustar\0" + bytes(250), "a tar archive"),
    (b"\n<!DOCTYPE html>\n<html><title>404 Not Found</title>", r"a web page \(HTML\)"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML text"),
    (b'{"error": "Entry not found"}', "a JSON text"),
    (len(_HEADER).to_bytes(8, "little") + _HEADER + bytes(4), "a safetensors file"),
    (pickle.dumps({"weight": 1}), "a pickle"),
    (b"\x08\x08\x12\x07pytorch\x1a\x052.9.0", "an ONNX file"),
    (b"\x1c\0\0\0TFL3" + bytes(40), "a TensorFlow Lite file"),
    (b"\x89HDF\r\n\x1a\n" + bytes(40), "an HDF5 file"),
    (_zip("m/data.pkl", "m/data/0"), r"a file of torch\.save"),
    (_zip("m/data.pkl", "m/constants.pkl"), "a TorchScript file"),
)


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (_bundled, r"a bundled program \(.bpte\)"),
        (lambda _: _zip("program.ptg", "program.safetensors"), r"a package of a native program \(.ptn\)"),
        (lambda _: b"\x10\0\0\0NPTG" + bytes(40), r"a package of a native program \(.ptn\)"),
        (lambda _: _zip("m/archive_format", "m/models/model.json"), r"an exported program \(.pt2\)"),
        (lambda _: _zip("anything"), "a zip archive"),
        (lambda _: b"GGUF" + bytes(40), "a GGUF file"),
        *((lambda _, data=data: data, kind) for data, kind in OTHERS),
    ],
)
def test_other_kinds_are_named(made, kind, files, tmp_path):
    """The error says what the file is, names it, and says what to give instead."""
    path = tmp_path / "model.pte"
    path.write_bytes(made(files))
    with pytest.raises(FormatError, match=rf"model\.pte: this is {kind}") as failure:
        read_pte(path)
    assert failure.value.hint


def test_what_is_no_program_is_named(tmp_path):
    """The same words where a .pt2 or a .ptd is wanted, with a remedy; one that is called .pte is read as one."""
    path = tmp_path / "model.pt2"
    for data, kind in OTHERS:
        path.write_bytes(data)
        for read in (open_checked, read_ptd):
            with pytest.raises(InputError, match=rf"model\.pt2: this is {kind}") as failure:
                read(path)
            assert failure.value.hint
        assert given_as_pte(path.replace(path.with_suffix(".pte"))) is (data[:2] != b"PK")


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
