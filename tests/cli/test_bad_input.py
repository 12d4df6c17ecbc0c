"""Whatever is wrong, one line says what and the next what to do; the old output stays and no temporary is left."""

import copy
import errno
import io
import pickle
import re
import signal
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from archives import CONSTANTS, MODEL, WEIGHT, WEIGHTS, Touch, take_apart, torch_file
from torch import nn

from vkfuse.lower.lowering import Lowered

OLD = b"what was there before"


def _torchscript():
    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), stream)
    return stream.getvalue()


def _state_dict():
    stream = io.BytesIO()
    torch.save(nn.Linear(2, 2).state_dict(), stream)
    return stream.getvalue()


def _without(archive, member):
    changed = copy.deepcopy(archive)
    del changed.members[member]
    return changed.encoded()


def _with(archive, member, data):
    changed = copy.deepcopy(archive)
    changed.members[member] = data
    return changed.encoded()


def _of_another_version(archive):
    changed = copy.deepcopy(archive)
    changed.edit_json(MODEL, lambda model: model["schema_version"].update(major=99))
    return changed.encoded()


def _compressed(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


def _bomb(archive):
    """A weight of 64 MiB of zeros in some KiB."""
    members = {**archive.members, WEIGHT: bytes(1 << 26)}
    return _compressed((archive.folder + name, data) for name, data in members.items())


def _bomb_in_a_weight(archive):
    return _with(archive, WEIGHT, _compressed([("archive/data.pkl", bytes(1 << 26))]))


BAD = {  # what is wrong: (bytes from a good archive, words of the message)
    "empty": (lambda _: b"", "not a .pt2 file"),
    "text": (lambda _: b"hello world" * 100, "not a .pt2 file"),
    "half a zip": (lambda a: a.encoded()[: len(a.encoded()) // 2], "truncated"),
    "a zip without its end": (lambda a: a.encoded()[:-30], "truncated"),
    "a zip with a flipped byte": (lambda a: a.encoded().replace(b'"graph_module"', b'"graph_modulf"', 1), ""),
    "a zip of other things": (lambda _: torch_file(pickle.dumps(1)), "no exported program"),
    "no program": (lambda a: _without(a, MODEL), "no exported program"),
    "no weight": (lambda a: _without(a, WEIGHT), ""),
    "no list of weights": (lambda a: _without(a, WEIGHTS), ""),
    "a program that is no JSON": (lambda a: _with(a, MODEL, b"{"), "not JSON"),
    "a program that is a number": (lambda a: _with(a, MODEL, b"1"), ""),
    "a list of weights that is a list": (lambda a: _with(a, WEIGHTS, b"[]"), ""),
    "a list of constants of numbers": (lambda a: _with(a, CONSTANTS, b'{"config": {"x": 1}}'), ""),
    "a program of a later version": (_of_another_version, ""),
    "a weight that inflates": (_bomb, "compressed"),
    "a pickle that inflates": (_bomb_in_a_weight, "compressed"),
    "a weight that is noise": (lambda a: _with(a, WEIGHT, b"\x93" * 100), ""),
    "a TorchScript file": (lambda _: _torchscript(), "TorchScript"),
    "a state dict": (lambda _: _state_dict(), "no exported program"),
}


@pytest.fixture
def output(tmp_path):
    """An output that exists, in a folder of its own."""
    path = tmp_path / "out" / "model.pte"
    path.parent.mkdir()
    path.write_bytes(OLD)
    return path


def _check_failed(ran, code, output):
    """The exit code, one line with a remedy as the end of stderr, nothing on stdout, the old output, no temporary."""
    lines = [line for line in ran.err.splitlines() if not re.fullmatch("vkfuse: [a-z ]+", line)]
    assert ran.code == code
    assert len(lines) == 2, ran.err
    assert lines[0].startswith("vkfuse: error: ")
    assert lines[1].startswith("  hint: ")
    assert "report the traceback" not in lines[1]
    assert ran.out == ""
    assert output.read_bytes() == OLD
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize("what", BAD)
def test_unreadable_program(what, vkfuse, program, output, tmp_path):
    """Exit code 2 for whatever is no exported program, damaged ones included."""
    make, words = BAD[what]
    path = tmp_path / "bad.pt2"
    path.write_bytes(make(take_apart(program)))
    ran = vkfuse("optimize", path, "-o", output)
    _check_failed(ran, 2, output)
    assert words in ran.err
    assert str(path) in ran.err


@pytest.mark.parametrize("name", ["absent.pt2", "."])
def test_program_that_cannot_be_opened(name, vkfuse, output, tmp_path):
    """A missing file, and a folder."""
    ran = vkfuse("optimize", tmp_path / name, "-o", output)
    _check_failed(ran, 2, output)
    assert str(tmp_path / name) in ran.err


def test_hostile_program(start, program, output, tmp_path):
    """In a process of its own: exit code 2, the name that the pickle wanted, the option to trust it, and nothing ran."""
    mark, path = tmp_path / "ran", tmp_path / "hostile.pt2"
    path.write_bytes(_with(take_apart(program), WEIGHT, torch_file(pickle.dumps(Touch(mark), protocol=4))))
    process = start("optimize", path, "-o", output)
    out, err = process.communicate(timeout=120)
    ran = type("Ran", (), {"code": process.returncode, "out": out.decode(), "err": err.decode()})
    _check_failed(ran, 2, output)
    assert "posix.system" in ran.err
    assert "--allow-pickle" in ran.err
    assert not mark.exists()


@pytest.mark.parametrize("name", ["absent/model.pte", "folder"])
def test_unwritable_output(name, vkfuse, program, output):
    """Exit code 2 before any work: no stage was announced."""
    folder = output.parent.parent / "other"
    (folder / "folder").mkdir(parents=True)
    ran = vkfuse("optimize", program, "-o", folder / name)
    _check_failed(ran, 2, output)
    assert str(folder / name) in ran.err
    assert "loading" not in ran.err
    assert [path.name for path in folder.iterdir()] == ["folder"]


def test_full_disk(vkfuse, program, output, monkeypatch):
    """The disk fills while the file is written: exit code 2, and a remedy that fits."""

    def write_some(_self, stream):
        stream.write(b"ET12" * 100)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Lowered, "write", write_some)
    ran = vkfuse("optimize", program, "-o", output)
    _check_failed(ran, 2, output)
    assert "No space left on device" in ran.err
    assert "free some space" in ran.err


@pytest.mark.parametrize("command", ["inspect", "optimize"])
def test_report_that_cannot_be_written(command, vkfuse, program, output, tmp_path):
    """Exit code 2 before any work: the error names the report, no stage was announced, the output is the old one."""
    report = tmp_path / "absent" / "r.json"
    ran = vkfuse(command, program, *(("-o", output) if command == "optimize" else ()), "--report", report)
    _check_failed(ran, 2, output)
    assert f"cannot write {report}" in ran.err
    assert "loading" not in ran.err


def test_baseline_that_is_no_file_of_ours(vkfuse, program, output, tmp_path):
    """A baseline file is read before any work."""
    baseline = tmp_path / "base.pte"
    baseline.write_bytes(b"no program" * 10)
    ran = vkfuse("optimize", program, "-o", output, "--baseline", baseline)
    _check_failed(ran, 2, output)
    assert f"error: {baseline}: " in ran.err
    assert "loading" not in ran.err


def test_package_that_is_missing(vkfuse, program, output, monkeypatch):
    """A slim installation: the command names the package that it lacks."""
    monkeypatch.setitem(sys.modules, "vkfuse.pipeline", None)
    monkeypatch.delattr("vkfuse.pipeline", raising=False)
    ran = vkfuse("optimize", program, "-o", output)
    _check_failed(ran, 2, output)
    assert "this command needs the package" in ran.err


@pytest.mark.parametrize(
    "options",
    [
        ("--runtime=newest",),
        ("--runtime=",),
        ("--baseline=absent.pte",),
        ("--storage=paper",),
        ("--format=xml",),
    ],
    ids=lambda options: options[0],
)
def test_bad_option(options, vkfuse, program, output):
    """Exit code 2 for a value that is none, with the value in the message and the old output in place."""
    ran = vkfuse("optimize", program, "-o", output, *options, "-q")
    assert ran.code == 2
    assert options[0].partition("=")[2] in ran.err
    assert "Traceback" not in ran.err
    assert output.read_bytes() == OLD


class _Unlowerable(nn.Module):
    """A sort: neither the Vulkan runtime nor ExecuTorch's kernels have it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svd(x)[1]


def test_program_that_cannot_be_lowered(vkfuse, output, tmp_path):
    """Exit code 3, and what is missing by name."""
    path = tmp_path / "svd.pt2"
    torch.export.save(torch.export.export(_Unlowerable(), (torch.randn(3, 3),)), path)
    ran = vkfuse("optimize", path, "-o", output)
    _check_failed(ran, 3, output)
    assert "svd" in ran.err


class _Spectrum(nn.Module):
    """A spectrogram by torch's own short Fourier transform."""

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        return torch.stft(wave, 16, 8, window=torch.ones(16), return_complex=True).angle()


def test_program_of_complex_numbers(vkfuse, output, tmp_path):
    """Exit code 3, the node and what it is, not a file that cannot be read."""
    path = tmp_path / "spectrum.pt2"
    torch.export.save(torch.export.export(_Spectrum(), (torch.randn(1, 64),)), path)
    ran = vkfuse("optimize", path, "-o", output)
    _check_failed(ran, 3, output)
    assert "stft of forward (aten.stft.default) computes complex numbers" in ran.err


def _wait_for(process, ready):
    """Until `ready()`, or the process has ended."""
    deadline = time.monotonic() + 120
    while process.poll() is None and not ready() and time.monotonic() < deadline:
        time.sleep(0.05)


def _catches(process, number):
    """Whether a process has a handler for a signal that Python has none for, by its status file."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    caught = int(re.search(r"SigCgt:\s*([0-9a-f]+)", status)[1], 16)
    return bool(caught >> (number - 1) & 1)


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads /proc to know when the handler stands"
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_interrupted(number, start, program, tmp_path):
    """While torch is imported, and while the file is lowered: exit code 130, one line, the old output, no temporary."""
    outputs = []
    processes = []
    for stage in ("importing", "lowering"):
        output = tmp_path / stage / "model.pte"
        output.parent.mkdir()
        output.write_bytes(OLD)
        outputs.append(output)
        processes.append(start("optimize", program, "-o", output, "--baseline=none"))
    importing, lowering = processes
    _wait_for(importing, lambda: _catches(importing, signal.SIGTERM))
    importing.send_signal(number)
    while (line := lowering.stderr.readline()) and line != b"vkfuse: lowering\n":
        pass
    assert len(list(outputs[1].parent.iterdir())) == 2  # the temporary stands beside the old output
    lowering.send_signal(number)
    for process, output in zip(processes, outputs, strict=True):
        out, err = process.communicate(timeout=120)
        assert process.returncode == 130
        assert (out, err) == (b"", b"vkfuse: error: interrupted\n  hint: nothing was written\n")
        assert output.read_bytes() == OLD
        assert list(output.parent.iterdir()) == [output]
