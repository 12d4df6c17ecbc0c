"""Several calls of a file at once, from one weight to the next, so that it is unpacked once for all of them.

A call that goes on from another one follows it to the same weight: what that has written to a constant of a delegate is
there when this one comes to it. What a call computes is, to the last bit, what it would compute in turn.
"""

from collections.abc import Iterable, Sequence

from vkfuse.pte.model import DelegateCall, JumpFalseCall
from vkfuse.runtime.operators.moves import PREPACK
from vkfuse.verify.errors import NotInStepError
from vkfuse.verify.session import Session
from vkfuse.verify.steps import Argument
from vkfuse.verify.vulkan.graph import GraphRun, State, as_file_says, computed
from vkfuse.verify.vulkan.table import TOGETHER

# Of each call the one, earlier in the list, that it goes on from; None: it begins after a reset.
Before = Sequence[int | None]


def file_in_step(
    session: Session, calls: Sequence[Sequence[Argument]], before: Before
) -> list[tuple[Argument, ...]]:
    """Run calls of the flat inputs, and return the outputs of each; the session itself stays where it is.

    Raises NotInStepError where a method cannot be run so, and what `Session.borrowed` does.
    """
    _check(session, before)
    lanes = [session.another() for _ in calls]
    for lane, inputs in zip(lanes, calls, strict=True):
        lane.enter(inputs)
    for position, instruction in enumerate(session.method.instructions):
        if isinstance(instruction, DelegateCall):
            _delegates(lanes, instruction, before)
        else:
            for lane in lanes:
                lane.step(instruction, position)
    for lane in lanes:
        session.heard(lane.noted)
    return [lane.outputs for lane in lanes]


def _check(session: Session, before: Before) -> None:
    """Raise NotInStepError for jumps, for delegates of other backends, and for state that is no constant of a delegate."""
    method, runs = session.method, session.delegates.values()
    if any(isinstance(each, JumpFalseCall) for each in method.instructions):
        raise NotInStepError("jumps")
    if len(runs) < len(method.delegates):
        raise NotInStepError("delegates of other backends")
    following = any(each is not None for each in before)
    if following and (session.stateful or not all(run.in_order for run in runs)):
        raise NotInStepError("state outside of delegates, or written more than once")


def _delegates(lanes: Sequence[Session], call: DelegateCall, before: Before) -> None:
    """Run a delegate in each session."""
    runs = [lane.delegates[call.delegate_index] for lane in lanes]
    handed = [lane.handed(call, run) for lane, run in zip(lanes, runs, strict=True)]
    states = [run.entered(values) for run, (values, _) in zip(runs, handed, strict=True)]
    start, chain = 0, runs[0].calls
    for stop in (*(at for at, (call, _) in enumerate(chain) if call.name in TOGETHER), len(chain)):
        for at in range(len(runs)):
            _alone(runs, range(start, stop), states, at, before[at])
        for run in runs:
            run.reset()  # no later call goes on from these
        if stop < len(chain):
            _joined(runs, stop, states)
        start = stop + 1
    for lane, run, state, (_, kinds) in zip(lanes, runs, states, handed, strict=True):
        lane.taken(call, run, run.left(state, kinds))


def _joined(runs: Sequence[GraphRun], number: int, states: Sequence[State]) -> None:
    """Compute an operator for all calls at once."""
    views = [run.view_of(number, state) for run, state in zip(runs, states, strict=True)]
    results = TOGETHER[views[0].name](views)
    for run, view, state, result in zip(runs, views, states, results, strict=True):
        run.settle(number, view, as_file_says(view, (result,)), state)


def _alone(
    runs: Sequence[GraphRun], numbers: Iterable[int], states: Sequence[State], at: int, behind: int | None
) -> None:
    """Compute some operators for one call, which finds what the one before it has just written."""
    run, state = runs[at], states[at]
    for number in numbers:
        operator, kernel = run.calls[number]
        written = operator.args[-1] if operator.args[-1] in run.kept else None
        if written is not None and behind is not None:
            if operator.name == PREPACK:
                continue
            state[written] = runs[behind].left_in(written).clone()  # kernels may write in place
        view = run.view_of(number, state)
        run.settle(number, view, computed(view, kernel), state)
