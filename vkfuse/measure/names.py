"""The names of tables that a file records: one named datum, which the runtime never asks for.

JSON, `{"<first 12 digits of the SHA-256 of a table's stored bytes>": "<name>"}`. It is only what whoever wrote the file
says: what cannot be read gives no names, and nothing but words depends on it.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vkfuse.pte.model import PteFile, once_a_file

KEY: Final = "vkfuse.names"
DIGITS: Final = 12  # of the SHA-256 of a table's bytes
_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_MOST: Final = 4 << 20  # bytes of names that are read; what is no list of names takes 25 times as much memory
_LONGEST: Final = 1 << 10  # characters of a name


def names_datum(names: Mapping[str, str]) -> bytes:
    """Return the datum that records `names` of tables by the first digits of the SHA-256 of their bytes."""
    return json.dumps(dict(sorted(names.items())), separators=(",", ":")).encode()


@once_a_file
def table_names(pte: PteFile) -> Mapping[str, str]:
    """Return the names that a file records, by the first digits of the SHA-256 of the tables' bytes."""
    data = next((entry.data for entry in pte.named if entry.key == KEY), None)
    if data is None or len(data) > _MOST:
        return _NONE
    try:
        read = json.loads(bytes(data))
    except (ValueError, RecursionError):
        return _NONE
    found = read.items() if isinstance(read, dict) else ()
    return MappingProxyType({key: name for key, name in found if _is_name(name)})


def _is_name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= _LONGEST
