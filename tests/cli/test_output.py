"""The outputs of a run: all or none, what was there stays until the new is whole, and no temporary is left."""

import errno
import fcntl
import os
import resource
import signal
import stat
import tempfile
import threading
from pathlib import Path

import pytest

from vkfuse.errors import OutputError
from vkfuse.output import Publication, collect, scratch, write
from vkfuse.signals import SIGNALS, Interrupted, handled_by, interrupt
from vkfuse.streams import ReaderGoneError

OLD, NEW = b"old" * 100, b"new" * 5000


def _publish(*targets, data=NEW):
    with Publication() as publication:
        for temporary, target in [(publication.file(target), target) for target in targets]:
            write(temporary, lambda stream: stream.write(data), target)


def _fails_with(error):
    def fill(stream):
        stream.write(NEW[:1000])
        raise error

    return fill


@pytest.fixture
def target(tmp_path):
    """A file that was there before."""
    path = tmp_path / "model.pte"
    path.write_bytes(OLD)
    return path


def test_replaces_what_was_there(target):
    """The new bytes under the old name and permissions, nothing beside it."""
    target.chmod(0o640)
    _publish(target)
    assert target.read_bytes() == NEW
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert list(target.parent.iterdir()) == [target]


def test_new_file_has_the_usual_permissions(tmp_path):
    """A new file is as readable as any that the user makes, unlike a temporary."""
    ours, other = tmp_path / "ours", tmp_path / "other"
    _publish(ours)
    other.touch()
    assert stat.S_IMODE(ours.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "free some space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "free some space"),
        (OSError(errno.EIO, "Input/output error"), "writable path"),
    ],
    ids=["full disk", "quota", "broken disk"],
)
def test_failed_write_leaves_the_old_file(error, hint, target):
    """An error of the system half-way is told with the target's name and a remedy."""
    with pytest.raises(OutputError, match=str(error.strerror)) as failed, Publication() as publication:
        write(publication.file(target), _fails_with(error), target)
    assert str(target) in failed.value.message
    assert hint in failed.value.hint
    assert target.read_bytes() == OLD
    assert list(target.parent.iterdir()) == [target]


def test_kernel_refuses_the_rest(target):
    """A real write that the kernel cuts short, by the process' limit on the size of files."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OutputError, match="too large"):
            _publish(target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert target.read_bytes() == OLD
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_interrupted_run_leaves_the_old_file(error, target):
    """Whatever ends the run inside, the temporary goes and the old file stays."""

    def interrupt():
        with Publication() as publication:
            publication.file(target).write_bytes(NEW)
            raise error

    with pytest.raises(error):
        interrupt()
    assert target.read_bytes() == OLD
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("name", ["absent/model.pte", "file/model.pte", "folder", "x" * 300, "loop"], ids=str)
def test_what_cannot_be_written_is_told_before_the_work(name, tmp_path):
    """A folder that is missing or a file, a folder as target, a long name, a loop of links: an error before any work."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match="cannot write") as failed, Publication() as publication:
        publication.file(tmp_path / name)
    assert failed.value.hint
    assert sorted(tmp_path.iterdir()) == before


def test_link_still_points_to_its_file(tmp_path):
    """A symbolic link stays one; the file that it points to is replaced."""
    real, link = tmp_path / "real.pte", tmp_path / "latest.pte"
    real.write_bytes(OLD)
    link.symlink_to("real.pte")
    _publish(link)
    assert link.is_symlink()
    assert real.read_bytes() == NEW


ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@ROOT
def test_owner_is_kept(target):
    """What root replaces stays its owner's, with its mode."""
    target.chmod(0o640)
    os.chown(target, 65534, 65533)
    _publish(target)
    status = target.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (65534, 65533, 0o640)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_write_protection_holds(what, target):
    """A mode without write bits is an intention, which root respects too: an error before any work names the mode."""
    path = target if what == "file" else target.parent
    path.chmod(0o444 if what == "file" else 0o555)
    try:
        with pytest.raises(OutputError, match=r"may not be written \(mode 0(444|555)"):
            _publish(target)
    finally:
        path.chmod(0o755)
    assert target.read_bytes() == OLD
    assert list(target.parent.iterdir()) == [target]


@pytest.fixture
def folder(target):
    """The folder of `target`, with a hard link, a symbolic link and a second file."""
    (target.parent / "hard.pte").hardlink_to(target)
    (target.parent / "soft.pte").symlink_to("model.pte")
    (target.parent / "gone.pte").symlink_to("absent.pte")
    return target.parent


ONE_FILE = [
    *(
        ("model.pte", other)
        for other in ("model.pte", "./model.pte", "../{}/model.pte", "hard.pte", "soft.pte")
    ),
    ("absent.pte", "absent.pte"),
    ("absent.pte", "./absent.pte"),
    ("absent.pte", "gone.pte"),
]


def _claim(first, one, other):
    with Publication() as publication:
        getattr(publication, first)(*(("MODEL.pt2", one) if first == "reads" else (one, "MODEL.pt2")))
        publication.file(other, "--report")


@pytest.mark.parametrize("first", ["reads", "file"])
@pytest.mark.parametrize(("one", "other"), ONE_FILE)
def test_two_names_of_one_file(one, other, first, folder):
    """By path, link or inode, there or not: an output that is another file of the run is refused with both names."""
    path = Path(f"{folder}/{other.format(folder.name)}")
    with pytest.raises(OutputError) as failed:
        _claim(first, folder / one, path)
    assert failed.value.message == f"--report {path} and MODEL.pt2 {folder / one} are the same file"
    assert {path.name for path in folder.iterdir()} == {"model.pte", "hard.pte", "soft.pte", "gone.pte"}


def test_output_that_is_read_later(target):
    """The order does not matter: an input named after the output is refused too. Two of /dev/null are no file."""
    with Publication() as publication:
        publication.file(target, "-o")
        with pytest.raises(OutputError, match=r"--baseline .* and -o .* are the same file"):
            publication.reads("--baseline", target)
        publication.file(Path("/dev/null"))
        publication.file(Path("/dev/null"))


def _publish_before_a_failure(target, later):
    """Publish `target`, and then `later`, whose rename fails because a folder has got in its place."""
    with Publication() as publication:
        publication.file(later).write_bytes(NEW * 2)
        publication.file(target).write_bytes(NEW)
        later.mkdir()


@pytest.mark.parametrize("absent", [False, True], ids=["there", "absent"])
def test_all_or_none(absent, target):
    """Where the second rename fails, the first is taken back: the old file, the same inode, or none."""
    later, inode = target.with_name("later"), target.stat().st_ino
    if absent:
        target.unlink()
    with pytest.raises(OutputError, match=r"cannot write .*later"):
        _publish_before_a_failure(target, later)
    assert {*target.parent.iterdir()} == ({later} if absent else {later, target})
    assert absent or (target.read_bytes(), target.stat().st_ino) == (OLD, inode)


def test_file_systems_without_hard_links(target, monkeypatch):
    """There the old file is copied, and comes back with its mode."""
    monkeypatch.setattr(os, "link", _raises(PermissionError(errno.EPERM, "no links")))
    target.chmod(0o640)
    with pytest.raises(OutputError, match=r"cannot write .*later"):
        _publish_before_a_failure(target, target.with_name("later"))
    assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (OLD, 0o640)
    assert {path.name for path in target.parent.iterdir()} == {"model.pte", "later"}


def _raises(error):
    def fail(*_arguments):
        raise error

    return fail


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_device_that_is_full(target):
    """Devices, pipes and stdout are written before any file is renamed."""
    with pytest.raises(OutputError, match="cannot write /dev/full: No space"):
        _publish(target, Path("/dev/full"))
    assert target.read_bytes() == OLD
    assert list(target.parent.iterdir()) == [target]


def test_reader_that_goes_away(target):
    """Who reads the printed report decides nothing: the file is published."""

    def print_to_nobody():
        with Publication() as publication:
            publication.file(target).write_bytes(NEW)
            raise ReaderGoneError

    with pytest.raises(ReaderGoneError):
        print_to_nobody()
    assert target.read_bytes() == NEW


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_signal_between_two_renames(number, target, monkeypatch):
    """It is held back until both are done, and then delivered to whom it was for."""
    other, rename, seen = target.parent / "r.json", Path.replace, []

    def replace(path, place):
        signal.raise_signal(number)
        seen.append(place.name)
        return rename(path, place)

    monkeypatch.setattr(Path, "replace", replace)
    before = signal.signal(number, lambda *_: seen.append("signal"))
    try:
        _publish(target, other)
    finally:
        signal.signal(number, before)
    assert sorted(seen[:2]) == ["model.pte", "r.json"]
    assert set(seen[2:]) == {"signal"}
    assert (target.read_bytes(), other.read_bytes()) == (NEW, NEW)


LEFT = ".vkfuse-0123abcd.tmp"


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_signal_right_after_the_temporary_is_made(number, target, monkeypatch):
    """The file is there before anybody can drop it: the signal waits until it is known."""

    def lock(descriptor):
        signal.raise_signal(number)
        return os.fstat(descriptor).st_nlink > 0

    monkeypatch.setattr("vkfuse.output._lock", lock)
    with handled_by(interrupt), pytest.raises(Interrupted), Publication() as publication:
        publication.file(target)
    assert [*target.parent.iterdir()] == [target]


def test_what_killed_runs_left_is_collected(target):
    """The next run that writes there removes it; what another holds, or is no file of ours, stays."""
    left, held, *others = (
        target.parent / name
        for name in (LEFT, ".vkfuse-00000000.tmp", ".vkfuse-x.tmp", "vkfuse-0123abcd.tmp")
    )
    for path in (left, held, *others):
        path.write_bytes(OLD)
    link = target.parent / ".vkfuse-11111111.tmp"
    link.symlink_to("model.pte")
    with held.open("rb") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        _publish(target)
    assert {*target.parent.iterdir()} == {target, held, link, *others}
    collect(target.parent)
    assert {*target.parent.iterdir()} == {target, link, *others}


def test_runs_beside_each_other(target):
    """Two that write to one folder leave each other's temporaries alone."""
    with Publication() as one, Publication() as two:
        one.file(target).write_bytes(NEW)
        two.file(target.parent / "other.pte").write_bytes(NEW)
        collect(target.parent)
    assert (target.read_bytes(), (target.parent / "other.pte").read_bytes()) == (NEW, NEW)


def test_scratch_file_has_no_name(tmp_path, monkeypatch):
    """A killed run cannot leave it. Without a folder for it the error says which variable names one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch() as stream:
        stream.write(NEW)
        assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(OutputError, match="absent") as failed, scratch():
        pytest.fail("there is no folder")
    assert "TMPDIR" in failed.value.hint


def test_device_is_written_to_not_replaced(tmp_path):
    """`-o /dev/null`, a pipe made by mkfifo: what is no regular file takes the bytes and stays what it is."""
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDWR)  # so that neither side waits for the other

    def read():
        while sum(map(len, got)) < len(NEW):
            got.append(os.read(end, len(NEW)))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        _publish(pipe)
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        reader.join(timeout=10)
        assert b"".join(got) == NEW
    finally:
        os.close(end)
