"""The names that a pickle would import, told without importing them: compared with what an unpickler asks for."""

import collections
import datetime as dt
import io
import pathlib
import pickle

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from vkfuse.errors import InputError, UnsafePickleError
from vkfuse.program.pickles import pickle_globals

OBJECTS = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(max_size=5),
        st.binary(max_size=5),
        st.complex_numbers(allow_nan=False),
        st.dates(),
        st.timedeltas(),
        st.fractions(),
        st.decimals(allow_nan=False),
        st.sampled_from(
            [pathlib.PurePosixPath("a"), collections.OrderedDict(a=1), len, dt.date, bytearray(b"x")]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.builds(lambda a: [a, a], inner),  # so that the memo is read
    ),
    max_leaves=8,
)
PICKLES = st.builds(
    lambda value, protocol: pickle.dumps(value, protocol=protocol), OBJECTS, st.integers(0, 5)
)


class _Recorder(pickle._Unpickler):
    """Python's own unpickler; it notes what it would import, and imports nothing unless the pickle is `sound`."""

    def __init__(self, data, *, sound):
        super().__init__(io.BytesIO(data))
        self.asked, self._sound = set(), sound

    def find_class(self, module, name):
        self.asked.add(f"{module}.{name}")
        return super().find_class(module, name) if self._sound else _nothing


def _nothing(*_args):
    return None


def _asked(data, *, sound=False):
    """The names that an unpickler asks for, up to where damage stops it."""
    recorder = _Recorder(data, sound=sound)
    try:
        recorder.load()
    except Exception:
        if sound:
            raise
    return recorder.asked


@given(PICKLES)
def test_exactly_what_a_sound_pickle_imports(data):
    """No name is missed and none is made up, in every protocol."""
    assert pickle_globals(data, "test") == _asked(data, sound=True)


@st.composite
def damaged(draw):
    """A pickle with bytes cut out, replaced and put in."""
    data = bytearray(draw(PICKLES))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(data)


@settings(max_examples=1500)
@given(st.one_of(damaged(), st.binary(max_size=60)))
def test_no_damage_hides_a_name(data):
    """Whatever the bytes, an unpickler asks for no name that was not told, or the pickle was refused."""
    try:
        told = pickle_globals(data, "test")
    except InputError:
        return
    assert _asked(data) <= told


TRICKS = {
    "the strings are popped": b"\x8c\x02os\x8c\x06system\x8c\x05torch\x8c\x04Size00\x93.",
    "the strings come from the memo": b"\x8c\x02os\x94\x8c\x06system\x940h\x00h\x01\x93.",
    "the memo is written twice": b"\x8c\x05torchq\x000\x8c\x02osq\x000h\x00\x8c\x06system\x93.",
    "the name is dotted": b"cos\npath.os.system\n.",
    "the module begins with a space": b"c os\nsystem\n.",
    "the module has an escape": b"c\\x6fs\nsystem\n.",
    "the instance opcode": b"(S'true'\nios\nsystem\n.",
    "the object opcode": b"(cos\nsystem\nS'true'\no.",
    "the extension registry": b"\x82\x01.",
    "a tuple between": b"\x8c\x02os\x8c\x06system)0\x93.",
    "a mark between": b"\x8c\x02os(1\x8c\x06system\x93.",
}


@pytest.mark.parametrize("data", TRICKS.values(), ids=TRICKS)
def test_tricks_are_told_or_refused(data):
    """Ways to reach os.system that a scan could misread: the name is told, or the pickle is refused."""
    try:
        told = pickle_globals(data, "test")
    except UnsafePickleError:
        return
    assert any(name.endswith("system") and name.startswith("os") for name in told)
