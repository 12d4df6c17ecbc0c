"""Methods and files without what nothing refers to any more."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from vkfuse.pte.model import (
    BoxedIntList,
    DelegateCall,
    FreeCall,
    Instruction,
    JumpFalseCall,
    KernelCall,
    Method,
    MoveCall,
    OptionalTensorList,
    TensorList,
    Value,
)

_Numbers = dict[int, int]


def pruned_method(method: Method) -> Method:
    """Return a method without values, operators and delegates that no instruction uses; what is left is renumbered."""
    operators = {entry.op_index for entry in method.instructions if isinstance(entry, KernelCall)}
    return reordered(method, sorted(_used_values(method)), sorted(operators))


def reordered(method: Method, in_order: Iterable[int], called: Iterable[int]) -> Method:
    """Return a method of these values and operators, which are all that its instructions name, in this order."""
    values, operators = _numbered(in_order), _numbered(called)
    delegates = _numbered(
        sorted({entry.delegate_index for entry in method.instructions if isinstance(entry, DelegateCall)})
    )
    return replace(
        method,
        values=tuple(_value(method.values[old], values) for old in values),
        inputs=_mapped(method.inputs, values),
        outputs=_mapped(method.outputs, values),
        chain_inputs=_mapped(method.chain_inputs, values),
        chain_outputs=_mapped(method.chain_outputs, values),
        instructions=tuple(_instruction(e, values, operators, delegates) for e in method.instructions),
        operators=tuple(method.operators[old] for old in operators),
        delegates=tuple(method.delegates[old] for old in delegates),
    )


def _numbered(kept: Iterable[int]) -> _Numbers:
    """The new numbers of what is kept, by the old."""
    return {old: new for new, old in enumerate(kept)}


def _used_values(method: Method) -> set[int]:
    """The values that instructions, inputs and outputs name, and those that their lists name."""
    used = {*method.inputs, *method.outputs, *method.chain_inputs, *method.chain_outputs}
    used.update(index for entry in method.instructions for index in values_of(entry))
    used.update(index for at in [*used] for index in members(method.values[at]))
    return used


def values_of(entry: Instruction) -> tuple[int, ...]:
    """Return the values that an instruction names."""
    match entry:
        case KernelCall() | DelegateCall():
            return entry.args
        case MoveCall():
            return entry.move_from, entry.move_to
        case JumpFalseCall():
            return (entry.cond_value_index,)
        case FreeCall():
            return (entry.value_index,)


def members(value: Value) -> Iterator[int]:
    """Yield the values that a list names."""
    if isinstance(value, BoxedIntList | TensorList | OptionalTensorList):
        yield from (index for index in value.ids if index >= 0)


def _value(value: Value, numbers: _Numbers) -> Value:
    if isinstance(value, BoxedIntList | TensorList | OptionalTensorList):
        return type(value)(tuple(numbers.get(index, index) for index in value.ids))
    return value


def _instruction(
    entry: Instruction, values: _Numbers, operators: _Numbers, delegates: _Numbers
) -> Instruction:
    match entry:
        case KernelCall():
            return KernelCall(op_index=operators[entry.op_index], args=_mapped(entry.args, values))
        case DelegateCall():
            return DelegateCall(
                delegate_index=delegates[entry.delegate_index], args=_mapped(entry.args, values)
            )
        case MoveCall():
            return MoveCall(move_from=values[entry.move_from], move_to=values[entry.move_to])
        case JumpFalseCall():
            return replace(entry, cond_value_index=values[entry.cond_value_index])
        case FreeCall():
            return FreeCall(value_index=values[entry.value_index])


def _mapped(ids: Sequence[int], numbers: _Numbers) -> tuple[int, ...]:
    return tuple(numbers[index] for index in ids)
