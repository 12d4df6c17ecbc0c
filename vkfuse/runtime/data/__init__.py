"""What was read of each version, with where it was read. tools/runtime writes operators, shaders and kernels."""

from importlib.resources import files


def lines(*path: str) -> tuple[str, ...]:
    """Return the lines of a list, less its comments; nothing where there is no such list."""
    file = files(__name__).joinpath(*path)
    text = file.read_text("utf-8") if file.is_file() else ""
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))
