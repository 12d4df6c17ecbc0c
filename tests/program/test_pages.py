"""Memory that is given back while it grows."""

import gc
import mmap
import threading
import time

import numpy as np
import pytest

import vkfuse
from vkfuse import pages
from vkfuse.mapping import map_file

SIZE = 160 << 20


def _soon(holds):
    for _ in range(100):
        if holds():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not pages._STATUS.exists(), reason="no system that says what is in memory")
def test_mapped_pages_are_given_back(tmp_path):
    """Pages of a view that was told of leave memory once they are many, and hold the same bytes when read again."""
    path = tmp_path / "big"
    path.write_bytes(b"")
    with path.open("r+b") as file:
        file.truncate(SIZE)
        file.seek(SIZE - 4)
        file.write(b"last")
    view = map_file(path, writable=True)
    with pages.thrifty() as told:
        told(view)
        before, most = pages._in_memory()[1], sum(pages._in_memory()) // pages._SHARE + SIZE // 4
        touched = np.frombuffer(view, np.uint8)[:: mmap.PAGESIZE]
        assert touched.sum() == 0
        assert _soon(lambda: pages._in_memory()[1] < before + most)
    assert bytes(view[-4:]) == b"last"


@pytest.mark.skipif(not pages._STATUS.exists(), reason="no system that says what is in memory")
def test_pages_of_an_array_are_forgotten(tmp_path):
    """A view of an array over a mapped file is a view of the file."""
    path = tmp_path / "big"
    path.write_bytes(bytes(SIZE))
    array = np.frombuffer(map_file(path), np.float32).reshape(4, -1)
    before = pages._in_memory()[1]
    assert array.sum() == 0
    between = pages._in_memory()[1]
    pages.forget(array.reshape(-1).view(np.uint8).data)
    assert between > before + SIZE // 2 > pages._in_memory()[1]


@pytest.mark.skipif(not pages._STATUS.exists(), reason="no system that says what is in memory")
def test_below_the_most_nothing_is_given_back(tmp_path):
    """Pages of a view stay where much more has been in memory: they would only be read again."""
    path = tmp_path / "big"
    path.write_bytes(bytes(SIZE // 4))
    view = map_file(path, writable=True)
    with pages.thrifty() as told:
        told(view)
        much, before = np.ones(2 * SIZE, np.uint8), pages._in_memory()
        time.sleep(10 * pages._EVERY)
        del much
        assert _soon(lambda: sum(pages._in_memory()) < sum(before) - SIZE)
        assert np.frombuffer(view, np.uint8)[:: mmap.PAGESIZE].sum() == 0
        time.sleep(10 * pages._EVERY)
        assert pages._in_memory()[1] > before[1] + SIZE // 5


def test_nothing_watches_afterwards():
    """What watches memory ends with the run, whatever ends it."""
    before = {*threading.enumerate()}
    with pytest.raises(KeyboardInterrupt), pages.thrifty():
        raise KeyboardInterrupt
    assert _soon(lambda: {*threading.enumerate()} <= before)


@pytest.mark.parametrize("usual", [(700, 10, 10), (200_000, 30, 500), (0, 10, 10)])
def test_collections_are_seldom_within_and_as_they_were_after(usual, tmp_path):
    """Thresholds are never lowered, a collector that is off stays off, and a run that ends in an error puts them back."""
    before, within = gc.get_threshold(), []
    gc.set_threshold(*usual)
    try:
        with pages.seldom_collected():
            within.append(gc.get_threshold())
        with pytest.raises(vkfuse.InputError):
            vkfuse.optimize(tmp_path / "model.pt2", tmp_path / "model.pte")
        assert gc.get_threshold() == usual
    finally:
        gc.set_threshold(*before)
    assert within == [tuple(map(max, usual, pages._SELDOM)) if usual[0] else usual]
