"""What the CPU kernels of a method compute of constants alone."""

from collections import Counter

from vkfuse.patch.folding import Evaluation
from vkfuse.pte.enums import ScalarType
from vkfuse.pte.model import KernelCall, Method, Tensor
from vkfuse.tables.floats import Array, numbers


def known_values(method: Method) -> dict[int, Array]:
    """The tensors of a method that are constants, and those that one kernel computes of them; bfloat16 is not computed."""
    known = {
        index: array for index in range(len(method.values)) if (array := _constant(method, index)) is not None
    }
    evaluation = Evaluation(method.values, known)
    written = Counter(
        entry.args[-1] for entry in method.instructions if isinstance(entry, KernelCall) and entry.args
    )
    for entry in method.instructions:
        if isinstance(entry, KernelCall) and entry.args and written[entry.args[-1]] == 1:
            result = _result(method, entry, known, evaluation)
            if result is not None:
                known[entry.args[-1]] = result
    return known


def _constant(method: Method, index: int) -> Array | None:
    value = method.values[index]
    if not isinstance(value, Tensor) or not value.constant or value.data is None:
        return None
    stored = (
        None
        if value.scalar_type is ScalarType.BFLOAT16
        else numbers(value.data, value.scalar_type, value.sizes, value.dim_order)
    )
    return None if stored is None else stored.stored


def _result(
    method: Method, call: KernelCall, known: dict[int, Array], evaluation: Evaluation
) -> Array | None:
    """What a kernel writes, None where it reads something else or is not known."""
    index = call.args[-1]
    out = method.values[index]
    if not isinstance(out, Tensor) or index in known:
        return None
    arguments = evaluation.arguments(call.args[: call.args.index(index)])
    if arguments is None:
        return None
    name = method.operators[call.op_index].full_name
    return evaluation.computed(name, arguments, out.scalar_type, out.sizes)
