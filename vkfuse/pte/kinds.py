"""What a file is that is not what was asked for: named, so that a reader knows what to give instead.

Sources: bundled_program_schema.fbs, flat_tensor.fbs and exir/_serialize/_ptn.py of ExecuTorch; what torch.export.save,
torch.save and torch.jit.save write; onnx.proto; the formats' own first bytes.
"""

import re
from typing import Final, TypeAlias

Kind: TypeAlias = tuple[str, str]  # what a file is, and what to do

EXPORTED: Final = ("an exported program (.pt2)", "optimize it, or inspect it: vkfuse inspect")
ARCHIVE: Final = ("a zip archive", "give the .pte itself")
_ZIP: Final = b"PK\x03\x04"
_TAIL: Final = 1 << 20  # bytes at the end of an archive that hold its directory, or the end of it
_TAR_AT: Final = slice(257, 262)
_PACKAGE: Final = ("a package of a native program (.ptn)", "write a .pte: no Vulkan runtime reads a .ptn")
_EXPORT: Final = "export the module: torch.export.save(torch.export.export(module, inputs), 'model.pt2')"
_UNPACK: Final = "unpack it first"
_DOWNLOAD: Final = "a download failed: look at the text, and download the file again"
_WEIGHTS: Final = f"it holds weights and no program: load them into their module, and {_EXPORT}"
_AT_4: Final = {
    b"NPTG": _PACKAGE,
    b"BP08": (
        "a bundled program (.bpte), which carries inputs for a device",
        "give the .pte that it was made of",
    ),
    b"FT01": ("external data (.ptd)", "give its .pte, and this file with --ptd"),
    b"TFL3": ("a TensorFlow Lite file", _EXPORT),
}
_IN_ZIP: Final = (
    (b"archive_format", EXPORTED),
    (b"program.ptg", _PACKAGE),
    (b"serialized_exported_program", ("an exported program of torch before 2.8", "export it again")),
    (b"constants.pkl", ("a TorchScript file", _EXPORT.replace("the", "the original", 1))),
    (b"data.pkl", ("a file of torch.save (a state dict, or a module)", _WEIGHTS)),
)
_BEGINS: Final = tuple(
    (re.compile(start, re.DOTALL | re.IGNORECASE), kind)
    for start, kind in (
        (rb"GGUF", ("a GGUF file", "export the model with ExecuTorch")),
        (
            rb"version https://git-lfs",
            ("a git-LFS pointer, not the file it stands for", "fetch that: git lfs pull"),
        ),
        (rb"\x1f\x8b", ("a gzip file", f"{_UNPACK}: gunzip")),
        (rb"\x28\xb5\x2f\xfd", ("a zstd file", f"{_UNPACK}: unzstd")),
        (rb"\xfd7zXZ\0", ("an xz file", f"{_UNPACK}: unxz")),
        (rb"BZh\d1AY&SY", ("a bzip2 file", f"{_UNPACK}: bunzip2")),
        (rb"\s*<(!doctype html|html|head|body)", ("a web page (HTML)", _DOWNLOAD)),
        (rb"\s*<\?xml", ("an XML text", _DOWNLOAD)),
        (rb'\s*\{\s*"', ("a JSON text", _DOWNLOAD)),
        (rb'.{5}\0{3}\{\s*("|\})', ("a safetensors file", _WEIGHTS)),
        (rb"\x80[\x02-\x05]", ("a pickle, as torch.save wrote it before torch 1.6", _WEIGHTS)),
        (rb"\x89HDF\r\n", ("an HDF5 file", _EXPORT)),
        (rb"\x08[\x01-\x14][\x12\x1a\x22\x2a\x32\x3a\x42]", ("an ONNX file", _EXPORT)),
    )
)


def other_kind(data: memoryview) -> Kind | None:
    """Return what a file is and what to do, None for what is not known, or may be a .pte."""
    start = bytes(data[:64])
    if start[4:6] == b"ET":
        return None
    if start[:4] == _ZIP:
        tail = bytes(data[-_TAIL:])
        known = (kind for mark, kind in _IN_ZIP if mark in tail)
        return next(known, ARCHIVE)
    if bytes(data[_TAR_AT]) == b"ustar":
        return "a tar archive", f"{_UNPACK}: tar -xf"
    return _AT_4.get(start[4:8]) or next((kind for begins, kind in _BEGINS if begins.match(start)), None)
