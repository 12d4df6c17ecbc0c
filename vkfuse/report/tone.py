"""What a cell tells of a failure, for renderers that have colours."""

from collections.abc import Mapping
from typing import Final, Literal

Tone = Literal["", "fails", "wrong"]
_TONES: Final[Mapping[str, Tone]] = {
    **dict.fromkeys(("FAILED", "DIFFERS", "NOT", "no", "fails"), "fails"),
    **dict.fromkeys(("wrong", "loads,"), "wrong"),
}


def tone(text: str) -> Tone:
    """Return the tone of a text, by its first and last word."""
    words = text.replace(":", " ").split()
    return next((_TONES[word] for word in words[:1] + words[-1:] if word in _TONES), "")
