"""The SPIR-V reader, on what ships and on anything else."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vkfuse.errors import FormatError, InputError
from vkfuse.glsl.manifest import Manifest, manifest_of, shipped_manifest, shipped_spirv
from vkfuse.glsl.spirv import reflect
from vkfuse.glsl.variants import VARIANTS


def test_a_manifest_is_read_as_it_was_written():
    """`loads` gives what `dumps` was given."""
    manifest = manifest_of(("a compiler",), {VARIANTS[0].name: shipped_spirv(VARIANTS[0])})
    assert Manifest.loads(manifest.dumps()) == manifest


def test_the_shipped_manifest_is_made_from_the_shipped_spirv():
    """Sizes, hashes and bindings are those of the files."""
    shipped = shipped_manifest()
    files = {variant.name: shipped_spirv(variant) for variant in VARIANTS}
    assert manifest_of(shipped.compiler, files) == shipped


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"shaders": [{}], "compiler": [], "schema": ""}', '{"shaders": 1}']
)
def test_no_manifest(text):
    """Other text is an input error."""
    with pytest.raises(InputError, match="not a shader manifest"):
        Manifest.loads(text)


@given(st.binary(max_size=200))
def test_any_bytes_give_an_answer_or_an_error(data):
    """Bytes that are no module are a format error, with or without the right magic."""
    for spirv in (data, shipped_spirv(VARIANTS[0])[:20] + data):
        with contextlib.suppress(FormatError):
            reflect(spirv)


@given(st.integers(0, 3000), st.integers(0, 0xFF))
@example(72, 10)
def test_a_changed_word_gives_an_answer_or_an_error(at, byte):
    """A corrupted module is read or refused."""
    spirv = bytearray(shipped_spirv(VARIANTS[0]))
    spirv[at] = byte
    with contextlib.suppress(FormatError):
        reflect(bytes(spirv))
