"""Choices of a run. Imports no torch, so that the command line offers them without it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, get_type_hints

from vkfuse.errors import VkfuseError
from vkfuse.gates import Gates
from vkfuse.lossy import Lossy
from vkfuse.quantities import parse_size
from vkfuse.runtime.versions import default_runtime
from vkfuse.typed import Typed, option

Progress = Callable[[str], None]


class BaselineChoice(StrEnum):
    """What "before" is, where it is no file."""

    FOLDED = "folded"
    STOCK = "stock"
    NONE = "none"


class Storage(StrEnum):
    """How a delegate stores its tensors."""

    TEXTURE = "texture"
    BUFFER = "buffer"


class LookupLayout(StrEnum):
    """How 4-bit tables that no linear reads are stored; docs/shader.md draws both."""

    FLAT = "flat"
    LINEAR = "linear"


class Compute(StrEnum):
    """What a program of half-precision arithmetic is computed in: the types that it was exported with, or float32."""

    GIVEN = "given"
    FLOAT32 = "float32"


class Scales(StrEnum):
    """How scales of fused lookups are stored: in half precision where none is changed by that, always, or as float32."""

    AUTO = "auto"
    HALF = "half"
    FLOAT32 = "float32"


DEFAULT_LAYOUT: Final = LookupLayout.LINEAR  # needs no feature of the device


@dataclass(frozen=True, slots=True, kw_only=True)
class VulkanOptions(Typed):
    """Choices of the Vulkan backend.

    `fp16` computes all float arithmetic in half precision (lossy). `small_textures` keeps to 2048 texels a side, which
    every GPU has, in place of 16384. A flat `lookup_layout` is read faster, a linear one needs no feature of the GPU.
    `scales` of lookups are in half precision where that is exact, for GPUs with 16-bit storage, unless float32.
    `embed_shader` stores vkfuse's own shaders for the lookups in the file, for runtimes that take them from there.
    """

    fp16: bool = field(default=False, metadata=option("Compute in half precision on the GPU. Lossy."))
    storage: Storage = field(default=Storage.TEXTURE, metadata=option("How delegates store tensors."))
    small_textures: bool = field(default=False, metadata=option("Keep to 2048 texels a side, for any GPU."))
    lookup_layout: LookupLayout = field(
        default=DEFAULT_LAYOUT,
        metadata=option(
            "How 4-bit tables that no linear reads are stored: flat is faster, but not for every GPU."
        ),
    )
    scales: Scales = field(
        default=Scales.AUTO,
        metadata=option(
            "Scales of fused lookups: in half precision where none changes, always (lossy), or float32."
        ),
    )
    embed_shader: bool = field(
        default=False, metadata=option("Store the lookups' shaders in the file; stock runtimes ignore them.")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(Typed):
    """Choices of a run. `baseline` is a BaselineChoice or the path of a .pte; `verify` runs the written bytes.

    `gates` are checks of the file: where one fails, it is not written. `names` of tables are recorded in it. `partial`
    writes a rewritten .pte that the runtime fails on or gets wrong as before. `max_memory` bounds, in bytes, what constants
    may evaluate to; None: a multiple of the program's size. Choices and sizes may be given as text.
    `keep_baseline` is where the file before is written, of a kind that is made. `cache` is a folder where lowered files are
    kept, and looked for by their graphs, and whole runs by their input.
    `check_indices` has the CPU look at the indices of each lookup in a table, whose call fails where one is outside.
    `compute` in float32 widens a program of bfloat16 or float16, but for its inputs and outputs.
    Raises VkfuseError for a value of another type.
    """

    runtime: str = field(default_factory=default_runtime)
    baseline: BaselineChoice | Path = BaselineChoice.FOLDED
    vulkan: VulkanOptions = field(default_factory=VulkanOptions)
    gates: Gates = field(default_factory=Gates)
    lossy: Lossy = field(default_factory=Lossy)
    verify: bool = field(default=True, metadata=option("Run the written file's bytes against the program."))
    names: bool = field(
        default=True,
        metadata=option("Record the names of tables in the file, for reports; runtimes ignore them."),
    )
    partial: bool = field(
        default=False, metadata=option("Write a .pte though the runtime fails on what was not mended.")
    )
    keep_baseline: Path | None = None
    cache: Path | None = field(
        default=None,
        metadata=option(
            "Folder of what runs made: the same input costs a hash, new weights in a known graph no lowering.",
            metavar="DIR",
        ),
    )
    allow_pickle: bool = field(
        default=False,
        metadata=option("Load pickles with names off the allowlist. Only for files that you trust."),
    )
    imports: tuple[str, ...] = field(
        default=(),
        metadata=option(
            "Import a Python module that registers operators of the program; its code is run.",
            metavar="MODULE",
            flag="--import",
        ),
    )
    compute: Compute = field(
        default=Compute.GIVEN,
        metadata=option("What bfloat16 and float16 programs compute in; inputs and outputs stay."),
    )
    check_indices: bool = field(
        default=False,
        metadata=option(
            "Let a call fail where an index is outside of its table; no GPU does that by itself."
        ),
    )
    verbose: bool = field(
        default=False,
        metadata=option("Show the logs and warnings of torch and ExecuTorch.", flag="--verbose -v"),
    )
    max_memory: int | None = field(default=None, metadata={"parse": parse_size})

    @property
    def given_baseline(self) -> Path | None:
        """The file that is given as the one before, None where `baseline` is a choice."""
        return None if isinstance(self.baseline, BaselineChoice) else self.baseline

    @property
    def loses(self) -> bool:
        """Whether tables of the program may be changed before anything else."""
        return self.lossy.anything or self.vulkan.scales is Scales.HALF

    def changed(self, changes: Mapping[str, Any]) -> "Options":
        """These options but for `changes`, fields of Options or of its parts. Raises VkfuseError for any other."""
        homes = {of.name: part for part, kind in _PARTS.items() for of in fields(kind)}
        known = {of.name for of in fields(Options)} | {*homes}
        unknown = next((name for name in changes if name not in known), None)
        if unknown is not None:
            raise VkfuseError(f"there is no option {unknown!r}", hint=f"there are {', '.join(sorted(known))}")
        made = replace(self, **{name: value for name, value in changes.items() if name not in homes})
        for part in _PARTS:
            inner = {name: value for name, value in changes.items() if homes.get(name) == part}
            if inner:
                made = replace(made, **{part: replace(getattr(made, part), **inner)})
        return made

    def check_gates(self) -> None:
        """Refuse gates that these options leave unanswered, and to keep a baseline that is not made. VkfuseError."""
        if self.keep_baseline is not None and self.baseline not in {
            BaselineChoice.FOLDED,
            BaselineChoice.STOCK,
        }:
            raise VkfuseError("there is no baseline to keep", hint="--baseline folded or stock makes one")
        reasons = {
            "before": (self.baseline is BaselineChoice.NONE, "there is no file before: choose a --baseline"),
            "verified": (not self.verify, "--no-verify runs nothing: leave it out"),
            "exact": (
                self.vulkan.fp16 or self.loses,
                "--fp16, --quantize and --scales half round: leave them out",
            ),
        }
        self.gates.check_possible({need: why for need, (stands, why) in reasons.items() if stands})


_PARTS: Final[Mapping[str, Any]] = {"vulkan": VulkanOptions, "gates": Gates, "lossy": Lossy}


def offered(names: str) -> Iterator[tuple[Field[Any], Any]]:
    """Yield the fields of Options or of its parts that are named, with their types."""
    kinds: tuple[Any, ...] = (Options, *_PARTS.values())
    known = {
        of.name: (of, hints[of.name])
        for kind in kinds
        for hints in [get_type_hints(kind)]
        for of in fields(kind)
    }
    yield from (known[name] for name in names.split())
