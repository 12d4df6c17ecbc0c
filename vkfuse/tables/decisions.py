"""What is said of a site: a proposal that can be proved and applied, or a refusal; and the choice between them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, Protocol, TypeVar

from vkfuse.runtime.codes import Objection
from vkfuse.runtime.versions import Runtime
from vkfuse.tables.floats import Array
from vkfuse.tables.proven import Proof


class Rung(IntEnum):
    """What becomes of a site, best first."""

    Q4 = 0  # 4-bit pack read by a fused operator
    Q8 = 1  # one byte a weight, read by a fused operator
    GATHERED = 2  # integer rows gathered first, dequantized after
    FOLDED = 3  # dequantized to a float constant

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a rule does not apply. `code` is stable; `detail` gives the numbers, `hint` what the user can do.

    `beside`: the rule is for sites of another kind, which says nothing of the table.
    """

    code: str
    detail: str
    hint: str = ""
    beside: bool = False

    @property
    def text(self) -> str:
        """All of it in a line."""
        text = f"{self.code}: {self.detail}"
        return f"{text}; {self.hint}" if self.hint else text


def reason(refusals: Sequence[Refusal]) -> str:
    """Why a site is not at its best rung: what the first rule that is for it has against it; empty where none has."""
    return next((refusal.text for refusal in refusals if not refusal.beside), "")


class Offer(Protocol):
    """A rewrite of one site that has not been applied, whatever it is a site of."""

    @property
    def rung(self) -> Rung:
        """The rung that it reaches."""

    @property
    def operators(self) -> tuple[str, ...]:
        """Vulkan operators that the runtime must have for it."""

    @property
    def how(self) -> tuple[str, ...]:
        """Codes of what it needed besides the plain rewrite."""

    def rebuild(self, low: int, high: int) -> Array:
        """Rows [low, high) of the float table from what it stores, in the type of the original."""


_Offer = TypeVar("_Offer", bound=Offer)
_Site = TypeVar("_Site")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Generic[_Site, _Offer]):
    """What is done with a site: the proposal that proved exact, and what spoke against those before it.

    Without a proposal the site stays on its float table.
    """

    site: _Site
    proposal: _Offer | None
    refusals: tuple[Refusal, ...]

    @property
    def rung(self) -> Rung:
        """What becomes of the site."""
        return Rung.FOLDED if self.proposal is None else self.proposal.rung

    @property
    def how(self) -> tuple[str, ...]:
        """Codes of what the rewrite needed."""
        return self.proposal.how if self.proposal is not None else ()


def choose(
    site: _Site,
    outcomes: Iterable[_Offer | Refusal],
    unfit: Callable[[_Offer], Refusal | None],
    prove: Callable[[_Offer], Proof],
) -> Decision[_Site, _Offer]:
    """The first of `outcomes` that nothing speaks against and whose rebuilt table is exact."""
    refusals: list[Refusal] = []
    for outcome in outcomes:
        refusal = outcome if isinstance(outcome, Refusal) else unfit(outcome)
        if refusal is None and not isinstance(outcome, Refusal):
            proof = prove(outcome)
            if proof.kind == "exact":
                return Decision(site=site, proposal=outcome, refusals=tuple(refusals))
            refusal = _not_exact(outcome, proof)
        if refusal is not None:
            refusals.append(refusal)
    return Decision(site=site, proposal=None, refusals=tuple(refusals))


def not_in_runtime(proposal: Offer, runtime: Runtime) -> Refusal | None:
    """Why a runtime has not what a proposal calls."""
    missing = [name for name in proposal.operators if name not in runtime.operators]
    if not missing:
        return None
    return Refusal(
        code="operator-not-in-runtime",
        detail=f"the runtime has no {', '.join(missing)}",
        hint="choose a newer runtime with --runtime",
    )


def first_fault(objections: Iterable[Objection]) -> Refusal | None:
    """What a runtime fails on or gets wrong, as a refusal."""
    found = next((o for o in objections if o.code.effect in {"fails", "wrong"}), None)
    return None if found is None else Refusal(code=found.code, detail=found.detail, hint=found.code.remedy)


def _not_exact(proposal: Offer, proof: Proof) -> Refusal:
    return Refusal(
        code="not-exact",
        detail=f"the {proposal.rung} table differs from the program's by up to {proof.max_abs_error:.3g}",
        hint="put no arithmetic between the quantized weight and its reader",
    )
