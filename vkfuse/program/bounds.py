"""How large an untrusted program may become when its constants are evaluated: 18 KB can name a tensor of 2 GiB.

Asked twice: of what the file declares, before torch is imported, and of the program that torch rebuilt. Imports no torch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from vkfuse.errors import InputError

_FREE: Final = 256 << 20  # bytes that any program may evaluate to: masks, rotary tables
_FACTOR: Final = (
    32  # of the file's size: a step of dequantizing makes at most 8 bytes of one, in several steps
)
_RESULT: Final = 512 << 20  # bytes of one result on the way; activations of images are large
_HINT: Final = "store it as a buffer, or allow it with --max-memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A call of a graph: the names that it reads and makes, and the bytes of what it makes."""

    name: str
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    bytes: int


def memory_limit(file_bytes: int, max_memory: int | None) -> int:
    """Bytes that the constants of a program of `file_bytes` may come to."""
    return max(_FREE, _FACTOR * file_bytes) if max_memory is None else max_memory


def check_results(steps: Iterable[Step], file_bytes: int, max_memory: int | None, where: str) -> None:
    """Raise InputError where one call, of the program or of a graph in it, makes more than a run can hold several of."""
    limit = max(_RESULT, _FACTOR * file_bytes) if max_memory is None else max_memory
    for step in steps:
        if step.bytes > limit:
            raise InputError(
                f"{where}: node {step.name} computes {step.bytes:,} bytes", hint="allow it with --max-memory"
            )


def check_excess(excess: int, limit: int, where: str) -> None:
    """Raise InputError where stored tensors, expanded, are more than `limit` bytes beyond what is stored."""
    if excess > limit:
        raise InputError(f"{where}: stored tensors expand by {excess:,} bytes", hint=_HINT)


def check_evaluated(steps: Sequence[Step], stored: Iterable[str], limit: int, where: str) -> None:
    """Raise InputError where what no input reaches comes to more than `limit` bytes: together, or one with its steps.

    `steps` are in order of execution, `stored` the names of stored tensors.
    """
    known, makers = set(stored), dict[str, Step]()
    for step in steps:
        if known.issuperset(step.reads):
            known.update(step.makes)
            makers.update(dict.fromkeys(step.makes, step))
    inside = {step.name for step in makers.values()}
    outer = {name for step in steps if step.name not in inside for name in step.reads}
    wanted = {step.name: step for name, step in makers.items() if name in outer}
    for step in wanted.values():
        _check_one(step, makers, limit, where)
    if (total := sum(step.bytes for step in wanted.values())) > limit:
        raise InputError(f"{where}: constants evaluate to {total:,} bytes", hint=_HINT)


def _check_one(step: Step, makers: dict[str, Step], limit: int, where: str) -> None:
    """A constant that something reads, with all that it is computed from."""
    seen, stack = {step.name: step}, [step]
    while stack:
        for read in stack.pop().reads:
            made_by = makers.get(read)
            if made_by is not None and made_by.name not in seen:
                seen[made_by.name] = made_by
                stack.append(made_by)
    needed = sum(of.bytes for of in seen.values())
    if needed > limit:
        raise InputError(
            f"{where}: node {step.name} evaluates to {needed:,} bytes, steps included", hint=_HINT
        )
