"""Which nodes run at the front on the CPU although Vulkan could: those that stand between CPU operators.

Masks and positions are integer arithmetic with a few float operators in between (a cast, a logarithm). Delegating these
would hand small tensors back and forth; computed in front, they enter the delegate once.
"""

from collections.abc import Callable, Iterable

from torch import fx

from vkfuse.lower.operands import operator_name
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.operators import record_of

READ_AS_NUMBER = Objection(Code.READ_AS_NUMBER, "it is read before the delegate begins")
FEEDS_THE_CPU = Objection(Code.FEEDS_THE_CPU, "it stands between operators that run on the CPU")


def front_of(nodes: Iterable[fx.Node], delegated: Callable[[fx.Node], bool]) -> frozenset[fx.Node]:
    """The nodes that `delegated` says yes to, that no weighty operator leads to, and that lead to a CPU operator.

    `nodes` are in topological order. Such a CPU operator counts only if no weighty one leads to it either.
    """
    calls = [n for n in nodes if n.op == "call_function"]
    light: set[fx.Node] = set()
    for node in calls:
        if not record_of(operator_name(node)).weighty and all(
            i.op != "call_function" or i in light for i in node.all_input_nodes
        ):
            light.add(node)
    leading: set[fx.Node] = set()
    for node in reversed(calls):
        if node in light and (not delegated(node) or any(user in leading for user in node.users)):
            leading.add(node)
    return frozenset(node for node in leading if delegated(node))
