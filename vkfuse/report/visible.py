"""Texts from files, made safe to show."""


def visible(text: str, besides: str = "\n") -> str:
    """Show what would steer a terminal, `besides` what may, as a replacement character: names come from the file."""
    return "".join(c if c.isprintable() or c in besides else "\N{REPLACEMENT CHARACTER}" for c in text)
