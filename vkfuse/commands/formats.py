"""How a result is written, where it is no report."""

from enum import StrEnum


class Format(StrEnum):
    """Text for people, JSON for scripts."""

    TEXT = "text"
    JSON = "json"
