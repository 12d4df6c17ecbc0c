"""Specs of small programs for the Vulkan backend, each made from its number alone.

    python tools/sweep/generate.py 0 100 > specs.jsonl      the programs numbered 0 to 99

Numbers from 1,000,000 on start with kinds that came later: 8-bit activations, backward steps, caches; those from 2,000,000
on with 8-bit convolutions, tables of other bits and of zero points, experts, caches of bytes; those from 3,000,000 on with
what models are made of, as people write it (kinds_models.py, kinds_layers.py), followed by kinds of all times. Successive
numbers go through all kinds of steps (kinds.py), and then through the settings in which each is tried: alone on small
sizes and on sizes about the limits of textures, with dynamic lengths, behind a 4-bit lookup, and in chains of 2 to 6
steps behind and beside one.
"""

import json
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from kinds import ALL, KINDS, Kind, View, names, steps
from program import Constants, Feed, evaluate

SMALL: Final = (1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 17, 32)
LIMITS: Final = (1, 2, 3, 4, 5, 2047, 2048, 2049, 16383, 16384, 16385)
LONG: Final = (2047, 2048, 2049, 16384, 20000)
SETTINGS: Final = ("alone", "limits", "dynamic", "behind", "behind", "chain", "chain", "beside")
_LARGEST: Final = 200_000  # values in a tensor: files and runs stay small
_TRIES: Final = 200
LATER: Final = 1_000_000  # numbers of the kinds that came first, and of those that came at each later time
_MODELS: Final = 3  # the time from which on inputs may have ties, outputs come twice, and any kind may follow
_AGAIN: Final = 0.15  # share of programs that also return an input, or a value a second time
_FILLS: Final = {"float32": ("", "", "", "ties", "edges"), "uint8": ("bytes",)}


def spec(number: int) -> dict[str, Any]:
    """The program of a number."""
    later = min(number // LATER, _MODELS)
    starts = [*names(later=later)]
    kind, setting = KINDS[starts[number % len(starts)]], SETTINGS[number // len(starts) % len(SETTINGS)]
    rng = random.Random(number)  # noqa: S311 - the same program for a number, everywhere
    for _ in range(_TRIES):
        draft = Draft(rng, setting, kind, later=later)
        if draft.start() and (draft.add(kind) if kind.takes else draft.steps):
            draft.extend()
            return {"id": number, "setting": setting} | draft.finished()
    raise LookupError(f"no inputs suit {kind.name} {setting} (number {number})")


def _moved(value: int, inserted: int) -> int:
    """The number of a value once an input has been inserted in front of the steps."""
    return value + (value >= inserted)


@dataclass(slots=True)
class Draft:
    """A program in the making, tried on tensors without data at its shortest, example's and longest lengths."""

    rng: random.Random
    setting: str
    kind: Kind
    later: int = 0
    inputs: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    lengths: dict[str, list[int]] = field(default_factory=dict)
    runs: tuple[list[torch.Tensor], ...] = ((), (), ())  # type: ignore[assignment]

    def start(self) -> bool:
        """Draw inputs, and a lookup where the setting has one; false where the kind cannot read what it gives."""
        made_by_steps = not self.kind.takes or {*self.kind.takes} & {*ALL}
        if not self.kind.takes or (made_by_steps and self.setting in {"behind", "chain", "beside"}):
            self._lookup()
            if self.setting == "beside":
                self._beside()
        else:
            self._input()
        return True

    def _length(self, name: str) -> str:
        longest = self.rng.choice((3, 8, 16, 33) if self.rng.random() < 0.93 else LONG)
        shortest = self.rng.choice((1, 1, 2))
        self.lengths[name] = [
            shortest,
            self.rng.randint(2, min(longest, 33)),
            longest,
        ]  # an example of 1 is always 1 to torch
        return name

    def _shape(self, rank: int, sizes: tuple[int, ...]) -> list[Any]:
        shape: list[Any] = [self.rng.choice(sizes) for _ in range(rank)]
        if rank == 4 and self.rng.random() < 0.7:
            shape[0] = 1  # convolutions of the backend take no batch
        dynamic = self.setting == "dynamic" or (
            self.setting not in {"alone", "limits"} and self.rng.random() < 0.5
        )
        if dynamic and rank:
            for name in ("n", "m")[: self.rng.choice((1, 1, 1, 2) if self.later < _MODELS else (1, 2))]:
                shape[self.rng.randrange(rank)] = self._length(name)
            self.lengths = {name: sizes for name, sizes in self.lengths.items() if name in shape}
        return shape

    def _input(self) -> None:
        """A value of any type and shape that the kind may take."""
        rank = self.rng.choice((1, 2, 2, 3, 3, 4, 4, 5))
        if self.setting == "limits":
            shape: list[Any] = [self.rng.choice(SMALL[:5]) for _ in range(rank)]
            shape[self.rng.randrange(rank)] = self.rng.choice(LIMITS)
        else:
            shape = self._shape(rank, SMALL)
        given = {"shape": shape, "dtype": str(self.rng.choice(self.kind.takes)).removeprefix("torch.")}
        if rank == 4 and self.rng.random() < 0.25:
            given["order"] = "channels_last"
        if self.later >= _MODELS and (fills := _FILLS.get(given["dtype"])):
            given["fill"] = self.rng.choice(fills)
        self._give(given)

    def _insert(self, given: dict[str, Any]) -> int:
        """Add an input behind the others, in front of the steps; its number."""
        number = len(self.inputs)
        self.inputs = [*self.inputs, given]
        self.steps = [step | {"of": [_moved(value, number) for value in step["of"]]} for step in self.steps]
        self.runs = tuple(  # type: ignore[assignment]
            [*run[:number], self._meta(given, at), *run[number:]] for at, run in enumerate(self.runs)
        )
        return number

    def _lookup(self) -> None:
        """Indices and a table: the kind's where it is one, else one of 4 bits, or now and then of floats."""
        rank = self.rng.choice((1, 2, 2, 2, 3))
        shape = self._shape(rank, (1, 1, 2, 3, 5, 8))
        kind = KINDS["table" if self.rng.random() < 0.85 else "embedding"] if self.kind.takes else self.kind
        drawn = {name: self.rng.choice(of) for name, of in kind.choices.items()}
        if self.rng.random() < 0.05:
            drawn |= self.rng.choice(({"rows": 16385}, {"rows": 16384}, {"columns": 2080}))
        if self.rng.random() < 0.2:
            drawn["half"] = True
        self._give(
            {"shape": shape, "dtype": self.rng.choice(("int64", "int64", "int32")), "rows": drawn["rows"]}
        )
        self._apply({"kind": kind.name, "of": [0], "with": drawn})

    def _beside(self) -> None:
        """A second input like what the lookup gives, combined with it."""
        looked_up = self.runs[1][-1]
        shape = [*self.inputs[0]["shape"], looked_up.shape[-1]]
        steps, self.steps = self.steps, []
        self._give({"shape": shape, "dtype": str(looked_up.dtype).removeprefix("torch.")})
        for step in steps:
            self._apply(step | {"of": [0]})
        combined = self.rng.choice(("add", "add", "mul", "maximum", "where_positive", "cat_last"))
        self._apply({"kind": combined, "of": self.rng.choice(([2, 1], [1, 2])), "with": {}})

    def _give(self, given: dict[str, Any]) -> None:
        self.inputs.append(given)
        self.runs = tuple([self._meta(each, at) for each in self.inputs] for at in range(3))  # type: ignore[assignment]

    def _meta(self, of: Mapping[str, Any], at: int) -> Any:
        if "value" in of:
            return of["value"]
        sizes = [self.lengths[size][at] if isinstance(size, str) else size for size in of["shape"]]
        return torch.empty(sizes, dtype=getattr(torch, of["dtype"]), device="meta")

    def _view(self, number: int) -> View:
        shapes = [tuple(run[number].shape) for run in self.runs]
        each = [*zip(*shapes, strict=True)]
        names = {tuple(sizes): name for name, sizes in self.lengths.items()}
        return View(
            shape=shapes[1],
            dynamic=frozenset(at for at, sizes in enumerate(each) if len({*sizes}) > 1),
            dtype=self.runs[1][number].dtype,
            longest=shapes[2],
            named=tuple(sizes[0] if len({*sizes}) == 1 else names.get(sizes) for sizes in each),
        )

    def add(self, kind: Kind) -> bool:
        """Try the kind on the latest value; a lookup gets a step before it where its values do not suit."""
        if self._try(kind, len(self.runs[1]) - 1):
            return True
        if self.setting in {"alone", "limits", "dynamic"}:
            return False
        return self._add(self._any()) and self._try(kind, len(self.runs[1]) - 1)

    def _any(self) -> Kind:
        return KINDS[self.rng.choice([*(names() if self.later < _MODELS else steps())])]

    def _add(self, kind: Kind) -> bool:
        last = len(self.runs[1]) - 1
        of = last if self.rng.random() < 0.85 else self.rng.randint(min(len(self.inputs), last), last)
        return self._try(kind, of)

    def extend(self) -> None:
        """Further steps, where the setting has chains."""
        if self.setting in {"chain", "beside"}:
            wanted = len(self.steps) + self.rng.randint(1, 4)
            for _ in range(_TRIES):
                if len(self.steps) >= wanted:
                    return
                self._add(self._any())

    def _try(self, kind: Kind, of: int) -> bool:
        drawn = kind.draw(self.rng, self._view(of))
        if drawn is None:
            return False
        step = {"kind": kind.name, "of": [of], "with": drawn}
        if kind.two and self.rng.random() < 0.4:
            other = self.rng.randrange(len(self.runs[1]))
            drawn.pop("constant")
            step["of"] = [of, other]
        if kind.further is None:
            return self._apply(step)
        before = self.inputs, self.steps, self.runs
        for given in kind.further(self._view(of), drawn):
            number = self._insert(given)
            step["of"] = [*(_moved(value, number) for value in step["of"]), number]
        if self._apply(step):
            return True
        self.inputs, self.steps, self.runs = before
        return False

    def _apply(self, step: dict[str, Any]) -> bool:
        """Add a step if it can be computed at all lengths, to values of bounded size."""
        try:
            made = [evaluate([step], [*run], Feed(Constants(0)), {})[-1] for run in self.runs]
        except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError):
            return False
        if any(not 0 < each.numel() <= _LARGEST or each.dtype not in ALL or each.dim() > 5 for each in made):
            return False
        if len({each.dim() for each in made}) > 1:
            return False
        self.steps.append(step)
        for run, value in zip(self.runs, made, strict=True):
            run.append(value)
        return True

    def finished(self) -> dict[str, Any]:
        """The spec: what no step reads is an output."""
        total, read = (
            len(self.inputs) + len(self.steps),
            {number for step in self.steps for number in step["of"]},
        )
        storage = self.rng.choice(("texture", "texture", "texture", "buffer"))
        halves = any(getattr(value, "dtype", None) is torch.float16 for value in self.runs[1])
        outputs = [number for number in range(len(self.inputs), total) if number not in read]
        if self.later >= _MODELS and self.rng.random() < _AGAIN:
            tensors = [at for at, value in enumerate(self.runs[1]) if isinstance(value, torch.Tensor)]
            outputs.insert(self.rng.randint(0, len(outputs)), self.rng.choice(tensors))
        return {
            "storage": storage,
            "small_textures": self.rng.random() < 0.15,
            "fp16": not halves and self.rng.random() < 0.08,
            "lengths": self.lengths,
            "inputs": self.inputs,
            "steps": self.steps,
            "outputs": outputs,
        }


def specs(first: int, end: int) -> Iterator[dict[str, Any]]:
    """The programs numbered from `first` to before `end`; a number that no inputs suit has none."""
    for number in range(first, end):
        try:
            yield spec(number)
        except LookupError:
            continue


if __name__ == "__main__":
    for each in specs(int(sys.argv[1]), int(sys.argv[2])):
        print(json.dumps(each))
