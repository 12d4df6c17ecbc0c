"""Calls a program that runs a .pte on a Vulkan runtime, in a process of its own.

    RUNNER MODEL.pte METHOD INPUTS OUTPUTS

loads the file, calls the method once for each call in INPUTS, in order and on one loaded method, and writes OUTPUTS. It
exits with 0, with 10 where the file does not load, with 11 where a call fails; outputs of the calls before are written.

Both files, little endian: u32 number of calls; for each u32 number of values; for each value u8 kind: 0 None | 1 tensor:
i32 ScalarType, u32 rank, i64 sizes, contiguous values | 2 int: i64 | 3 float: f64 | 4 bool: u8.
"""

import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

_TYPES: Final = {
    0: torch.uint8,
    1: torch.int8,
    2: torch.int16,
    3: torch.int32,
    4: torch.int64,
    5: torch.float16,
    6: torch.float32,
    7: torch.float64,
    11: torch.bool,
    15: torch.bfloat16,
}
_CODES: Final = {dtype: code for code, dtype in _TYPES.items()}
_DOES_NOT_LOAD: Final = 10
Call = Sequence[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What came of running a file: `state` is "ran", "load" or "run" (what failed), `log` says why."""

    state: str
    outputs: list[list[Any]]
    log: str = ""


def run(
    runner: str, model: Path, calls: Sequence[Call], *, method: str = "forward", timeout: float = 120
) -> Ran:
    """Run a file's method on inputs."""
    with tempfile.TemporaryDirectory() as folder:
        given, got = Path(folder) / "inputs", Path(folder) / "outputs"
        given.write_bytes(b"".join(_packed(calls)))
        command = [runner, str(model), method, str(given), str(got)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            return Ran(state="run", outputs=[], log=f"no end within {timeout} s")
        outputs = list(_unpacked(got.read_bytes())) if got.exists() else []
    log = (done.stdout + done.stderr).decode(errors="replace")
    state = {0: "ran", _DOES_NOT_LOAD: "load"}.get(done.returncode, "run")
    return Ran(state=state, outputs=outputs, log="" if state == "ran" else _last_words(log))


def _last_words(log: str) -> str:
    lines = [
        line
        for line in log.splitlines()
        if any(word in line for word in ("rror", "Exception", "abort", "E 0", "signal"))
    ]
    return " | ".join(line[:300] for line in (lines or log.splitlines())[-4:])


def _packed(calls: Sequence[Call]) -> Iterator[bytes]:
    yield struct.pack("<I", len(calls))
    for values in calls:
        yield struct.pack("<I", len(values))
        yield from (_packed_value(value) for value in values)


def _packed_value(value: Any) -> bytes:
    match value:
        case None:
            return b"\0"
        case bool():
            return struct.pack("<BB", 4, value)
        case int():
            return struct.pack("<Bq", 2, value)
        case float():
            return struct.pack("<Bd", 3, value)
    head = struct.pack(f"<BiI{value.dim()}q", 1, _CODES[value.dtype], value.dim(), *value.shape)
    return head + value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _unpacked(data: bytes) -> Iterator[list[Any]]:
    at = 0

    def take(layout: str) -> tuple[Any, ...]:
        nonlocal at
        start, at = at, at + struct.calcsize(layout)
        return struct.unpack_from(layout, data, start)

    def value() -> Any:
        nonlocal at
        (kind,) = take("<B")
        if kind != 1:
            return None if kind == 0 else take({2: "<q", 3: "<d", 4: "<?"}[kind])[0]
        code, rank = take("<iI")
        sizes, dtype = take(f"<{rank}q"), _TYPES[code]
        made = torch.empty(sizes, dtype=dtype)
        start, at = at, at + made.numel() * made.element_size()
        if made.numel():
            made = torch.frombuffer(bytearray(data[start:at]), dtype=dtype).reshape(sizes)
        return made

    for _ in range(*take("<I")):
        yield [value() for _ in range(*take("<I"))]
