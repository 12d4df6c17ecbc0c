"""Labels of a ledger as two files are compared by them."""

import re
from typing import Final

_DELEGATE: Final = re.compile(r"(\S:\S+)/\d+ ")


def merged(label: str) -> str:
    """Return `vulkan:forward/2 graph` as `vulkan:forward graph`: the numbers of delegates shift."""
    return _DELEGATE.sub(r"\1 ", label)
