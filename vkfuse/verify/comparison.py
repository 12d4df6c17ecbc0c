"""A file and the program that it came from on the same inputs, in torch's arithmetic or in the runtime's."""

import contextlib
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from types import MappingProxyType
from typing import Any, Final

import torch

from vkfuse.errors import VkfuseError
from vkfuse.program.parts import constants_of
from vkfuse.runtime.codes import Code
from vkfuse.verify.compare import Tolerance, compare_outputs, largest_change, largest_value, widened
from vkfuse.verify.departure import find_departure
from vkfuse.verify.errors import NoInputsError
from vkfuse.verify.in_step import file_in_step
from vkfuse.verify.inputs import Sample
from vkfuse.verify.reference import EAGER, Arithmetic, Reference, noisy_half, noisy_runtime
from vkfuse.verify.rowwise import in_parts, made
from vkfuse.verify.session import Session
from vkfuse.verify.steps import Argument, Observer
from vkfuse.verify.verdict import Departure, OutputCheck, Run
from vkfuse.verify.vulkan.elementwise import has_nan

_NOISE_TRIALS: Final = 3
_EDGE_TRIALS: Final = 16  # a fair coin lands on the same side of all in 1 of 65,536
_MANY_WEIGHTS: Final = 1 << 24  # bytes from which a pass over all of them is worth saving
_FEW_RESULTS: Final = 1 << 23  # bytes that a call may keep, since all calls do at once
Calls = tuple[tuple[Argument, ...], ...]
Known = dict[Arithmetic, tuple[object, ...]]


class Comparison:
    """Both sides, and what the file's run has shown of the runtime's arithmetic so far."""

    def __init__(self, session: Session, reference: Reference, tolerance: Tolerance) -> None:
        self._session, self._reference, self._tolerance = session, reference, tolerance
        self._usual_noise = 0.0
        self._behind: dict[Arithmetic | None, Calls] = {}  # what was called since a reset; None: of the file
        self._usual: tuple[Arithmetic, ...] = (EAGER,)  # what a sample is likely to need
        self._runs: list[tuple[Sample, Run]] = []
        self._ahead: dict[int, tuple[tuple[object, ...], Known]] = {}  # of samples, by identity

    def foresee(self, given: Sequence[Sample]) -> None:
        """Compute what samples need in step, so that a large program's weights are gone through once for all of them.

        What cannot be computed so, or is wrong, is computed one after the other when it is asked for.
        """
        calls, before, ends = _in_order(given)
        if len(ends) < 2 or not self._worth(calls):
            return
        with contextlib.suppress(Exception):  # whatever it is, the run in turn comes to it again
            accepted = [_accepted(self._session, values) for values in calls]
            got = file_in_step(self._session, accepted, before)
            kinds = tuple(dict.fromkeys((EAGER, self._arithmetic())))
            expected = self._reference.in_step(calls, before, kinds)
            self._ahead = {
                id(sample): (got[at], dict(zip(kinds, expected[at], strict=True))) for sample, at in ends
            }

    def _worth(self, calls: Sequence[tuple[Argument, ...]]) -> bool:
        """Whether weights are what takes time and results no memory, and all calls are of the same sizes."""
        shapes = {tuple(v.shape if isinstance(v, torch.Tensor) else v for v in values) for values in calls}
        weights = sum(of.nbytes for of in constants_of(self._reference.exported).values())
        return len(shapes) == 1 and weights >= _MANY_WEIGHTS and self._session.result_bytes <= _FEW_RESULTS

    def _as_foreseen(self, sample: Sample) -> Run | None:
        """Compare what was computed in step; None where that is not what calls in turn compute, or is wrong."""
        got, known = self._ahead.pop(id(sample), ((), {}))
        if not known:
            return None
        usual, noise = self._usual, self._usual_noise
        if not self._runs or usual == tuple(known):
            run = self.compared(sample, got, known)
            if run.passed:
                return run
            self._usual, self._usual_noise = usual, noise
        else:  # calls in turn go on from where the first one was computed in all of them
            self._file(self._runs[0][0])
            self._expected(self._runs[0][0], tuple(known))
        self._ahead = {}
        return None

    def run(self, sample: Sample) -> Run:
        """Run the file on one set of inputs, and compare; what is known of equal inputs is not computed again."""
        known = next((run for other, run in self._runs if _alike(sample, other)), None)
        if known is not None:
            return replace(known, label=sample.label)
        run = self._as_foreseen(sample) or (self._later(sample) if self._runs else self._first(sample))
        if not run.passed and sample.drawn:
            self._need_numbers(sample)
        self._runs.append((sample, run))
        return run

    def _need_numbers(self, sample: Sample) -> None:
        """Raise NoInputsError where the program itself computes NaN of numbers that were drawn: nothing is wanted there."""
        if any(map(has_nan, chain.from_iterable(sample.calls))):
            return
        for number, output in enumerate(map(made, self._one(sample, EAGER))):
            if has_nan(output):
                raise NoInputsError(f"on these inputs output {number} of the program itself is no number")

    def _first(self, sample: Sample) -> Run:
        """Run the file first, which shows the arithmetic; its faults are raised where the program takes the inputs."""
        try:
            got = self._file(sample)
        except VkfuseError:
            self._expected(sample, self._usual)
            raise
        return self.compared(sample, got, self._known(sample, (EAGER, self._arithmetic())))

    def _later(self, sample: Sample) -> Run:
        """Run the program before the file: what it does not take may be long."""
        known = self._known(sample, self._usual)
        return self.compared(sample, self._file(sample), known)

    def _known(
        self, sample: Sample, arithmetics: tuple[Arithmetic, ...]
    ) -> dict[Arithmetic, tuple[object, ...]]:
        """What the program computes, by arithmetic; large products wait until they are compared."""
        kinds = tuple(dict.fromkeys(arithmetics))
        return dict(zip(kinds, self._expected(sample, kinds), strict=True))

    def compared(
        self,
        sample: Sample,
        got: tuple[object, ...],
        known: Mapping[Arithmetic, tuple[object, ...]] = MappingProxyType({}),
    ) -> Run:
        """Compare outputs for one set of inputs; with the runtime's arithmetic where torch's own does not agree."""
        eager = self._compared(got, known.get(EAGER) or self._one(sample, EAGER))
        arithmetic = self._arithmetic()
        if all(output.passed for output in eager):
            return Run(label=sample.label, outputs=eager)
        run = None if arithmetic.eager else self._in_runtimes(sample, arithmetic, got, eager, known)
        return run or self._at_edges(sample, arithmetic, got, eager) or Run(label=sample.label, outputs=eager)

    def _in_runtimes(
        self,
        sample: Sample,
        arithmetic: Arithmetic,
        got: tuple[object, ...],
        eager: tuple[OutputCheck, ...],
        known: Mapping[Arithmetic, tuple[object, ...]],
    ) -> Run | None:
        """Compare with the runtime's arithmetic; None where that does not agree either."""
        self._usual = (EAGER, arithmetic)
        clean = known.get(arithmetic) or self._one(sample, arithmetic)
        for outputs, noise in self._allowances(sample, arithmetic, got, clean):
            if all(output.passed for output in outputs):
                return Run(
                    label=sample.label,
                    outputs=outputs,
                    reason=_reason(arithmetic),
                    eager_rel=max(output.max_rel for output in eager),
                    noise=noise,
                )
        return None

    def _at_edges(
        self, sample: Sample, arithmetic: Arithmetic, got: tuple[object, ...], eager: tuple[OutputCheck, ...]
    ) -> Run | None:
        """Compare, in half precision, each value with what lies between those on both sides of an edge; else None.

        A value that no rounding carries over an edge has none but its own.
        """
        in_half = self._tolerance.arithmetic is torch.float16 and not self._tolerance.given
        if not (self._reference.jumps and in_half):
            return None
        nearest = [made(each) for each in self._one(sample, arithmetic)]
        least, most = nearest, nearest
        for seed in range(_EDGE_TRIALS):
            trial = [made(each) for each in self._one(sample, noisy_half(arithmetic, seed))]
            least, most = [*map(_lesser, least, trial)], [*map(_greater, most, trial)]
        expected = tuple(map(_between, got, least, most))
        outputs = self._compared(got, expected)
        if not all(output.passed for output in outputs):
            return None
        rel = max(output.max_rel for output in eager)
        return Run(label=sample.label, outputs=outputs, reason=_AT_EDGES, eager_rel=rel)

    def blame(self, sample: Sample) -> Departure | None:
        """Find the operator that departs."""
        arithmetic = self._arithmetic()
        noise = 0.0
        if arithmetic.steps:
            expected = self._one(sample, arithmetic)
            largest = _largest(map(made, expected))
            noise = self._noise(sample, arithmetic, expected) / largest if largest else 0.0
        self._before(sample, arithmetic)
        return find_departure(self._session, self._reference, sample.values, arithmetic, noise)

    def calls(self, sample: Sample) -> list[tuple[Argument, ...]]:
        """Return the inputs of each call up to a sample's, as the method takes them."""
        return [_accepted(self._session, values) for values in sample.calls]

    def watch(self, sample: Sample, observe: Observer) -> None:
        """Run the file on one set of inputs under an observer."""
        self._behind = {}
        self._session.reset()
        self._session(_accepted(self._session, sample.values), observe)

    def _before(self, sample: Sample, arithmetic: Arithmetic) -> None:
        """Bring both sides to where a sample finds them."""
        self._behind = {}
        self._session.reset()
        self._reference.reset()
        for values in sample.earlier:
            self._session(_accepted(self._session, values))
            self._reference(values, arithmetic=arithmetic)

    def _file(self, sample: Sample) -> tuple[Argument, ...]:
        """What the file computes, until it is called again."""
        found: tuple[Argument, ...] = ()
        behind = self._stand(None, sample)
        if not behind:
            self._session.reset()
        for values in sample.calls[behind:]:
            found = self._session.borrowed(_accepted(self._session, values))
        self._behind[None] = sample.calls
        return found

    def _one(self, sample: Sample, arithmetic: Arithmetic) -> tuple[object, ...]:
        return self._expected(sample, (arithmetic,))[0]

    def _expected(self, sample: Sample, arithmetics: Sequence[Arithmetic]) -> list[tuple[object, ...]]:
        """What the program computes in each arithmetic."""
        behind = {each: self._stand(each, sample) for each in arithmetics}
        found: dict[Arithmetic, tuple[object, ...]] = {}
        for each in arithmetics:
            if not behind[each]:
                self._reference.reset(each)
        for number, values in enumerate(sample.calls):
            left = [each for each in arithmetics if behind[each] <= number]
            if left:
                found |= zip(left, self._reference.each(values, left), strict=True)
        for each in arithmetics:
            if each.noise:  # nobody asks for more of it
                self._reference.reset(each)
            else:
                self._behind[each] = sample.calls
        return [found[each] for each in arithmetics]

    def _stand(self, side: Arithmetic | None, sample: Sample) -> int:
        """How many calls of a sample a side has behind it, and nothing else; where it stands is forgotten."""
        behind = self._behind.pop(side, ())
        begun = len(behind) < len(sample.calls) and all(map(operator.is_, behind, sample.calls))
        return len(behind) if begun else 0

    def _arithmetic(self) -> Arithmetic:
        noted = self._session.noted
        return Arithmetic(
            dynamic_rows=Code.QPARAMS_NUDGED in noted or Code.ONE_ROW_NOT_QUANTIZED in noted,
            gelu_tanh=Code.GELU_BY_TANH in noted,
            rounded=self._reference.rounds,
        )

    def _allowances(
        self, sample: Sample, arithmetic: Arithmetic, got: tuple[object, ...], clean: tuple[object, ...]
    ) -> Iterator[tuple[tuple[OutputCheck, ...], float]]:
        """Yield what the file's outputs are beside what they may be, and what was added to the limit.

        The program in the runtime's arithmetic; that within the noise of an earlier sample, or of its own few trials;
        and each of many trials by itself: a single value on the edge between two steps falls to one side in some only.
        """
        outputs = self._compared(got, clean)
        yield outputs, 0.0
        if not arithmetic.steps:
            return
        if self._usual_noise:
            yield self._widened(outputs), self._usual_noise
        self._noise(sample, arithmetic, clean)
        yield self._widened(outputs), self._usual_noise
        for seed in range(_EDGE_TRIALS):
            expected = self._one(sample, noisy_runtime(arithmetic, seed))
            yield self._compared(got, expected), 0.0

    def _compared(self, got: tuple[object, ...], expected: tuple[object, ...]) -> tuple[OutputCheck, ...]:
        """Compare outputs, each by the precision that it is computed in."""
        pairs = zip(got, expected, self._reference.coarsest, strict=False)
        return tuple(
            compare_outputs(index, ours, made(theirs), self._tolerance.of(kind))
            for index, (ours, theirs, kind) in enumerate(pairs)
        )

    def _widened(self, outputs: tuple[OutputCheck, ...]) -> tuple[OutputCheck, ...]:
        return tuple(widened(output, self._usual_noise, self._tolerance) for output in outputs)

    def _noise(self, sample: Sample, arithmetic: Arithmetic, clean: tuple[object, ...]) -> float:
        """Twice the largest change of an output when activations change by 1e-6 before they are rounded."""
        trials = self._expected(sample, [noisy_runtime(arithmetic, seed) for seed in range(_NOISE_TRIALS)])
        self._usual_noise = 2 * max(map(_largest_change, zip(clean, *trials, strict=True)), default=0.0)
        return self._usual_noise


_AT_EDGES: Final = "the program jumps, and what half precision leaves next to an edge falls to either side"


def _in_order(
    given: Sequence[Sample],
) -> tuple[list[tuple[Argument, ...]], list[int | None], list[tuple[Sample, int]]]:
    """The calls of samples, each once; which one each goes on from, None after a reset; each sample's last.

    Of samples that are alike the first.
    """
    calls: list[tuple[Argument, ...]] = []
    before: list[int | None] = []
    ends: list[tuple[Sample, int]] = []
    at: dict[tuple[int | None, int], int] = {}
    for sample in given:
        if any(_alike(sample, other) for other, _ in ends):
            continue
        behind: int | None = None
        for values in sample.calls:
            place = (behind, id(values))
            if place not in at:
                at[place] = len(calls)
                calls.append(values)
                before.append(behind)
            behind = at[place]
        ends.append((sample, at[place]))
    return calls, before, ends


def _lesser(value: Any, other: Any) -> Any:
    return torch.minimum(value, other) if isinstance(value, torch.Tensor) else value


def _greater(value: Any, other: Any) -> Any:
    return torch.maximum(value, other) if isinstance(value, torch.Tensor) else value


def _between(got: Any, least: Any, most: Any) -> Any:
    """What of the values from `least` to `most` is next to what a file computes."""
    if not isinstance(got, torch.Tensor) or not isinstance(least, torch.Tensor) or got.shape != least.shape:
        return least
    number = torch.where(got.isnan(), least, got).to(least.dtype)
    return torch.minimum(torch.maximum(number, least), most)


def _alike(sample: Sample, other: Sample) -> bool:
    """Whether two samples are single calls with equal inputs."""
    if sample.earlier or other.earlier:
        return False
    return all(map(_equal, sample.values, other.values))


def _equal(value: Argument, other: Argument) -> bool:
    if isinstance(value, torch.Tensor) and isinstance(other, torch.Tensor):
        return value.dtype is other.dtype and torch.equal(value, other)
    return value is other


def _largest(outputs: Iterable[object]) -> float:
    floats = (out for out in outputs if isinstance(out, torch.Tensor) and out.is_floating_point())
    return max(map(largest_value, floats), default=0.0)


def _largest_change(outputs: Sequence[object]) -> float:
    """The largest difference of the first from the others, 0 of what are no floats."""
    return max(
        largest_change(clean, noisy)
        if isinstance(clean, torch.Tensor) and isinstance(noisy, torch.Tensor) and clean.is_floating_point()
        else 0.0
        for clean, *others in in_parts(outputs)
        for noisy in others
    )


def _reason(arithmetic: Arithmetic) -> str:
    """Say how the runtime's arithmetic differs from torch's."""
    parts = []
    if arithmetic.dynamic_rows:
        parts.append("activations are rounded to 8 bits by the runtime's own rule, a single row not at all")
    if arithmetic.rounded:
        parts.append("the program rounds activations, and what is next to an edge falls to one of two steps")
    if arithmetic.gelu_tanh:
        parts.append("every gelu is computed by tanh")
    return "; ".join(parts)


def _accepted(session: Session, values: tuple[Argument, ...]) -> tuple[Argument, ...]:
    """Return the inputs that the method takes: the emitter may leave out None."""
    if len(values) == len(session.method.inputs):
        return values
    return tuple(value for value in values if value is not None)
