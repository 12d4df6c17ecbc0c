"""Several calls of a file at once: an instruction of all, then the next, so that a weight is unpacked once for all of them.

A call that goes on from another one follows it by an operator: what that has written to a constant of a delegate is there
when this one comes to it. What a call computes is, to the last bit, what it would compute in turn.
"""

from collections.abc import Sequence

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
    for number, (operator, _) in enumerate(runs[0].calls):
        if operator.name in TOGETHER:
            _joined(runs, number, states)
        else:
            _one_by_one(runs, number, states, before)
    for lane, run, state, (_, kinds) in zip(lanes, runs, states, handed, strict=True):
        lane.taken(call, run, run.left(state, kinds))


def _joined(runs: Sequence[GraphRun], number: int, states: Sequence[State]) -> None:
    """Compute an operator for all calls at once."""
    views = [run.view_of(number, state) for run, state in zip(runs, states, strict=True)]
    results = TOGETHER[views[0].name](views)
    for run, view, state, result in zip(runs, views, states, results, strict=True):
        run.settle(number, view, as_file_says(view, (result,)), state)


def _one_by_one(runs: Sequence[GraphRun], number: int, states: Sequence[State], before: Before) -> None:
    """Compute an operator for each call, which finds what the one before it has written."""
    operator, kernel = runs[0].calls[number]
    written = operator.args[-1] if operator.args[-1] in runs[0].kept else None
    for run, state, behind in zip(runs, states, before, strict=True):
        if written is not None and behind is not None:
            if operator.name == PREPACK:
                continue
            state[written] = states[behind][written].clone()  # kernels may write in place
        view = run.view_of(number, state)
        run.settle(number, view, computed(view, kernel), state)
        run.reset()  # no later call goes on from this one
