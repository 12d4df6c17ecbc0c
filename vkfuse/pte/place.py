"""Where something stands in a file."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Place:
    """A method, a delegate of it, a call there, or with no delegate an instruction of the method itself.

    Spelled `forward`, `forward/0`, `forward/0:3`, `forward:3`.
    """

    method: str
    delegate: int | None = None
    call: int | None = None

    def __str__(self) -> str:
        """Return the place as reports spell it."""
        delegate = "" if self.delegate is None else f"/{self.delegate}"
        return f"{self.method}{delegate}" + ("" if self.call is None else f":{self.call}")

    def at(self, call: int) -> "Place":
        """Return the place of a call here."""
        return replace(self, call=call)

    @property
    def around(self) -> "Place":
        """The delegate, or the method, that a call is in."""
        return replace(self, call=None)
