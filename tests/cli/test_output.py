"""Output is atomic: what was there stays until the new file is whole, and no temporary is left."""

import errno
import os
import resource
import stat
import threading

import pytest

from vkfuse.errors import OutputError
from vkfuse.output import atomic_file, write

OLD, NEW = b"old" * 100, b"new" * 5000


def _publish(target):
    with atomic_file(target) as temporary:
        write(temporary, lambda stream: stream.write(NEW), target)


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
    with pytest.raises(OutputError, match=str(error.strerror)) as failed, atomic_file(target) as temporary:
        write(temporary, _fails_with(error), target)
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
        with atomic_file(target) as temporary:
            temporary.write_bytes(NEW)
            raise error

    with pytest.raises(error):
        interrupt()
    assert target.read_bytes() == OLD
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("name", ["absent/model.pte", "file/model.pte", "folder", "x" * 300], ids=str)
def test_what_cannot_be_written_is_told_before_the_work(name, tmp_path):
    """A folder that is missing or a file, a folder as the target, a name too long: an error before any work."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match="cannot write") as failed, atomic_file(tmp_path / name):
        pytest.fail("the work began")
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
