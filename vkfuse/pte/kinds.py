"""What a file is that is no .pte: named, so that a reader knows what to give instead.

Sources: bundled_program_schema.fbs, flat_tensor.fbs and exir/_serialize/_ptn.py of ExecuTorch; what torch.export writes.
"""

from typing import Final

_ZIP: Final = b"PK\x03\x04"
_TAIL: Final = 1 << 20  # bytes at the end of an archive that hold its directory, or the end of it
_PACKAGE: Final = ("a package of a native program (.ptn)", "write a .pte: no Vulkan runtime reads a .ptn")
_AT_4: Final = {
    b"NPTG": _PACKAGE,
    b"BP08": (
        "a bundled program (.bpte), which carries inputs for a device",
        "give the .pte that it was made of",
    ),
    b"FT01": ("external data (.ptd)", "give its .pte, and this file with --ptd"),
}
_IN_ZIP: Final = (
    (b"archive_format", ("an exported program (.pt2)", "optimize it, or inspect it: vkfuse inspect")),
    (b"program.ptg", _PACKAGE),
)


def other_kind(data: memoryview) -> tuple[str, str] | None:
    """Return what a file is and what to do, None for what is not known, or may be a .pte."""
    start = bytes(data[:8])
    if start[:4] == b"GGUF":
        return "a GGUF file", "export the model with ExecuTorch"
    if start[:4] != _ZIP:
        return _AT_4.get(start[4:8])
    tail = bytes(data[-_TAIL:])
    known = (kind for mark, kind in _IN_ZIP if mark in tail)
    return next(known, ("a zip archive", "give the .pte itself"))
