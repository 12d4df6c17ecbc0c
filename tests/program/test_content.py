"""Hashes that are kept: of tensors while nobody writes to them, of files while they stay as they are."""

import hashlib
import os

import pytest
import torch

from vkfuse import mapping
from vkfuse.mapping import hashed, map_file
from vkfuse.program import content as contents
from vkfuse.program.content import Bits, content


@pytest.fixture
def counted(monkeypatch):
    """How many bytes were hashed of tensors."""
    taken, digest = [], contents._digest
    monkeypatch.setattr(
        contents,
        "_digest",
        lambda tensor: taken.append(tensor.numel() * tensor.element_size()) or digest(tensor),
    )
    return taken


def test_a_tensor_is_hashed_once_until_it_is_written_to(counted):
    """Views of other places, shapes and types have hashes of their own; an equal tensor has the same."""
    whole = torch.arange(12.0).reshape(3, 4)
    views = [whole, whole[1:], whole.t(), whole.view(torch.int32), whole.detach(), torch.nn.Parameter(whole)]
    first = [content(view) for view in views]
    assert first == [content(view) for view in views]
    assert counted == [48, 32, 48, 48]
    assert len({*first}) == 4
    assert (
        content(whole.clone())
        == first[0]
        == (hashlib.sha256(whole.numpy()).hexdigest(), torch.float32, (3, 4))
    )
    whole[2, 3] = 0
    assert content(whole.detach())[0] == hashlib.sha256(whole.numpy()).hexdigest() != first[0][0]


def test_what_is_gone_is_not_kept(monkeypatch):
    """A tensor in the memory of one that is gone has a hash of its own, and what is known does not grow."""
    monkeypatch.setattr(contents, "_MOST", len(contents._KNOWN) + 8)
    hashes = [content(torch.full((1 << 12,), float(at)))[0] for at in range(64)]
    assert len({*hashes}) == 64
    assert len(contents._KNOWN) <= contents._MOST


def test_tensors_without_a_count_of_writes_are_hashed_each_time():
    """Those of inference mode."""
    with torch.inference_mode():
        tensor = torch.zeros(4)
        before = content(tensor)
        tensor += 1
        assert content(tensor) != before


def test_a_file_is_hashed_once_while_it_stays_as_it_is(tmp_path, monkeypatch):
    """Mapped in either way; a file that was written to, or replaced by one of its size, is hashed again."""
    path, taken = tmp_path / "file", []
    path.write_bytes(b"first")
    digest = mapping.digest
    monkeypatch.setattr(mapping, "digest", lambda data, **how: taken.append(len(data)) or digest(data, **how))
    of = [hashed(map_file(path)), hashed(map_file(path, writable=True)), hashed(map_file(path)[:3])]
    assert of == [hashlib.sha256(data).digest() for data in (b"first", b"first", b"fir")]
    assert taken == [5, 3]
    os.utime(path, ns=(0, 0))
    path.write_bytes(b"other")
    os.utime(path, ns=(0, 0))
    assert hashed(map_file(path)) == hashlib.sha256(b"other").digest()


def test_keys_are_hashed_by_how_tensors_begin(counted):
    """Equal bits in one type and shape are one key; those that begin alike are compared, bit for bit, and not hashed."""
    first = torch.arange(1 << 16)
    later = first.clone()
    later[-1] = 0
    keys = {
        Bits(tensor): at
        for at, tensor in enumerate(
            [first, first.reshape(256, 256), first.int(), first + 1, first.view(1, -1)]
        )
    }
    assert len(keys) == 5
    assert sum(counted) == 5 * 8 * 4096 - 4 * 4096
    assert keys[Bits(first)] == 0
    assert sum(counted) < first.nbytes
    assert Bits(later) not in keys
    assert keys[Bits(first.clone())] == 0
    assert sum(counted) == 8 * 8 * 4096 - 4 * 4096
    ending = torch.zeros(1 << 16, 4)
    ending[-1, 0] = torch.nan
    assert Bits(ending) == Bits(ending.clone()) != Bits(torch.cat([ending[:-1], -ending[-1:]]))
    assert Bits(ending.t()) == Bits(ending.t().contiguous())
    assert Bits(torch.empty(0)) == Bits(torch.empty(0)) != Bits(torch.empty(0, 2))
    assert Bits(torch.tensor(1)) == Bits(torch.tensor(1)) != Bits(torch.tensor(2))
