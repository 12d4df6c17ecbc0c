"""Lower until the file can be loaded; just what its faults, or errors of ExecuTorch, are about goes to the CPU."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch.export import ExportedProgram

from vkfuse.errors import LoweringError
from vkfuse.lint import Blame, blame, faults, lint
from vkfuse.lower.callable import check_callable, check_kernels, check_types
from vkfuse.lower.lowering import NO_DATA, Lowered, NotLoweredError, lower
from vkfuse.lower.numbers import NUMBERS_HINT, number_only_a_run_knows
from vkfuse.lower.operands import Target
from vkfuse.lower.partition import Node
from vkfuse.lower.upstream import NO_HANDLE
from vkfuse.options import Options, Progress
from vkfuse.pte.model import PteFile
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.versions import find_runtime

MAX_ROUNDS = 6  # each keeps at least one more operator off the delegate
MAX_ATTEMPTS = 40  # to find what ExecuTorch cannot lower, some seconds each


def lower_loadable(
    methods: Mapping[str, ExportedProgram],
    options: Options,
    write: Callable[[Lowered], PteFile],
    progress: Progress,
    *,
    named: Mapping[str, bytes] = NO_DATA,
) -> tuple[Lowered, PteFile]:
    """Lower, `write` and read back until the runtime can load the file, which also holds `named` data.

    Raises LoweringError that names what is left.
    """
    check_callable(methods)
    check_types(methods)
    check_kernels(methods)
    target = Target(runtime=find_runtime(options.runtime))
    for _ in range(MAX_ROUNDS):
        lowered, target = _lowered(methods, options, target, progress, named)
        pte = write(lowered)
        progress("reading back")
        found = faults(lint(pte, options.runtime))
        if not found:
            return lowered, pte
        less = _without_blamed(target, lowered, pte)
        if less == target:
            break
        target = less
    left = "; ".join(f"{f.name} ({f.code}, in {f.where})" for f in found[:5])
    unknown = number_only_a_run_knows(methods)
    raise LoweringError(
        f"ExecuTorch {options.runtime} cannot load what the program lowers to{unknown}: {left}",
        hint=NUMBERS_HINT if unknown else found[0].hint,
    )


def _without_blamed(target: Target, lowered: Lowered, pte: PteFile) -> Target:
    """`target` without the nodes behind each faulty operator call, or the operator where a fusion made it of others."""
    nodes: dict[tuple[str, str], Objection] = {}
    operators: dict[str, Objection] = {}
    for each in blame(pte, target.runtime.version):
        found = _nodes_of(each, lowered, pte)
        nodes |= {(node.method, node.name): each.objection for node in found}
        if not found:
            operators[each.operator] = each.objection
    return target.without(nodes, operators)


def _nodes_of(each: Blame, lowered: Lowered, pte: PteFile) -> list[Node]:
    handles = lowered.handles(pte, each.where, each.node_id)
    known = [n for n in lowered.delegated if n.method == each.where.method and n.handle != NO_HANDLE]
    behind = [node for node in known if node.handle in handles]
    alike = [node for node in behind if node.operator == each.operator]
    return alike or [node for node in behind if not node.fused]


def _lowered(
    methods: Mapping[str, ExportedProgram],
    options: Options,
    target: Target,
    progress: Progress,
    named: Mapping[str, bytes],
) -> tuple[Lowered, Target]:
    """Lower without what is kept off, and without what else ExecuTorch cannot lower."""
    progress(_stage(target))
    try:
        return lower(methods, target, options.vulkan, named), target
    except NotLoweredError as error:
        attempts = _Attempts(methods=methods, options=options, target=target, error=error, progress=progress)
        target = attempts.without_culprits()
    return lower(methods, target, options.vulkan, named), target


def _stage(target: Target) -> str:
    names = sorted({*target.operators, *(name for _, name in target.nodes)})
    return f"lowering again with {', '.join(names)} on the CPU" if names else "lowering"


@dataclass(slots=True, kw_only=True)
class _Attempts:
    """Lowerings with ever other nodes on the CPU, to see which of them make ExecuTorch raise `error`."""

    methods: Mapping[str, ExportedProgram]
    options: Options
    target: Target
    error: NotLoweredError
    progress: Progress
    count: int = 0

    def without_culprits(self) -> Target:
        """Search first by operator, then by node; all nodes of an operator where telling them apart would take too long.

        Raises the error where it is not about what is delegated, or about too many operators to find them all.
        """
        nodes = list(self.error.delegated)
        names = tuple(dict.fromkeys(node.operator for node in nodes))
        try:
            guilty = culprits(names, lambda left: self._works([n for n in nodes if n.operator in left]))
        except _TooManyAttempts:
            guilty = None
        if guilty is None:
            raise self.error
        suspects = tuple(node for node in nodes if node.operator in guilty)
        try:
            found = culprits(suspects, self._works) or frozenset(suspects)
        except _TooManyAttempts:
            found = frozenset(suspects)
        return self._without(found)

    def _without(self, nodes: "frozenset[Node] | list[Node]") -> Target:
        reason = Objection(Code.EXECUTORCH_RAISES, self.error.message)
        return self.target.without({(node.method, node.name): reason for node in nodes})

    def _works(self, left_out: "frozenset[Node] | list[Node]") -> bool:
        if self.count == MAX_ATTEMPTS:
            raise _TooManyAttempts
        self.count += 1
        self.progress(f"looking for what ExecuTorch cannot lower, attempt {self.count}")
        try:
            lower(self.methods, self._without(left_out), self.options.vulkan)
        except NotLoweredError:
            return False
        return True


class _TooManyAttempts(Exception):  # noqa: N818 - no error, a budget
    """The search has had its attempts."""


T = TypeVar("T", bound=Hashable)


def culprits(candidates: Sequence[T], works_without: Callable[[frozenset[T]], bool]) -> frozenset[T] | None:
    """The candidates without which the attempt works; None where it fails without all of them.

    `works_without` tries with a set left out; leaving out more must not make it fail. Each culprit costs about
    log2(len(candidates)) attempts, and one to see whether it is the last.
    """
    if not works_without(frozenset(candidates)):
        return None
    found: frozenset[T] = frozenset()
    while not works_without(found):
        rest = [c for c in candidates if c not in found]
        found |= {rest[_first_that_works(rest, found, works_without) - 1]}
    return found


def _first_that_works(
    rest: Sequence[T], found: frozenset[T], works_without: Callable[[frozenset[T]], bool]
) -> int:
    """The least n for which it works without `found` and the first n of `rest`: it fails for 0, works for all."""
    fails, works = 0, len(rest)
    while works - fails > 1:
        middle = (fails + works) // 2
        if works_without(found.union(rest[:middle])):
            works = middle
        else:
            fails = middle
    return works
