"""What a repair requires and ensures: checked around each, so that one that breaks it is named."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, OutputKind, OutputSpec

from vkfuse.errors import LoweringError
from vkfuse.rewrite.repairs.each import RepairRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """A repair runs `after` those whose results it looks at, where they run; of the operators it `removes` none is left.

    Every repair keeps the program's inputs, and its results, by type, rank and known sizes.
    """

    after: tuple[RepairRule, ...] = ()
    removes: tuple[Any, ...] = ()

    def require(self, rule: RepairRule, left: Collection[RepairRule]) -> None:
        """See that nothing which has to stand in front is left to run. LoweringError."""
        missing = next((other for other in self.after if other in left), None)
        if missing is not None:
            raise _fault(rule, f"runs before {_name(missing)}, whose results it looks at")

    def ensure(self, rule: RepairRule, before: ExportedProgram, after: ExportedProgram) -> None:
        """See that what came out is as promised. LoweringError."""
        left = next((n for n in after.graph.nodes if n.target in self.removes), None)
        if left is not None:
            raise _fault(rule, f"leaves {left.target} at {left.name}")
        given, taken = _inputs(before), _inputs(after)
        if len(given) != len(taken) or not all(map(_alike, given, taken)):
            raise _fault(rule, "changes the program's inputs")
        for at, (old, new) in enumerate(zip(_results(before), _results(after), strict=False)):
            if not _alike(old, new):
                raise _fault(rule, f"makes result {at} {_shown(new)}, which was {_shown(old)}")


def _fault(rule: RepairRule, what: str) -> LoweringError:
    return LoweringError(
        f"the repair {_name(rule)} {what}", hint="a fault in vkfuse: report it with the program"
    )


def _name(rule: RepairRule) -> str:
    return getattr(rule, "__name__", str(rule))


def _values(exported: ExportedProgram, specs: Iterable[InputSpec | OutputSpec], kind: object) -> list[Any]:
    """What callers give or get, in order; decompositions may name it otherwise."""
    values = {node.name: node.meta.get("val") for node in exported.graph.nodes}
    return [values.get(spec.arg.name) for spec in specs if spec.kind is kind]


def _inputs(exported: ExportedProgram) -> list[Any]:
    return _values(exported, exported.graph_signature.input_specs, InputKind.USER_INPUT)


def _results(exported: ExportedProgram) -> list[Any]:
    return _values(exported, exported.graph_signature.output_specs, OutputKind.USER_OUTPUT)


def _alike(old: Any, new: Any) -> bool:
    """Whether a caller sees one type, rank and size; sizes that are symbols in one may be known in the other."""
    if not isinstance(old, torch.Tensor) or not isinstance(new, torch.Tensor):
        return isinstance(old, torch.Tensor) == isinstance(new, torch.Tensor)
    sizes = zip(old.shape, new.shape, strict=False)
    return (old.dtype, old.dim()) == (new.dtype, new.dim()) and all(
        a == b for a, b in sizes if isinstance(a, int) and isinstance(b, int)
    )


def _shown(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, torch.Tensor) else str(value)
