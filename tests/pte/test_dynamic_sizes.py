"""Sizes that vary, in files that do not say which: stock ones, against verdicts of the real runtime."""

import functools
import io
from dataclasses import replace

import pytest
from dynamic_programs import VERDICTS, program_of
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.backends.vulkan.patterns import fusable_patterns

from vkfuse.lint import lint
from vkfuse.lower.lowering import lower_stock
from vkfuse.lower.operands import constant_names, operands_of
from vkfuse.options import VulkanOptions
from vkfuse.pte.reader import parse_pte
from vkfuse.quiet import quiet
from vkfuse.runtime.axes import NUMBER, OUTPUT, followed
from vkfuse.runtime.operands import Symbol, Tensor
from vkfuse.runtime.operators import OPERATORS, record_of


@pytest.fixture(scope="module")
def lowered():
    """What ExecuTorch makes of each program, and the calls that its partitioner gets; what it fuses is traced once."""
    with pytest.MonkeyPatch.context() as patch:
        for entry in (entry for entry in fusable_patterns.values() if entry.get_graphs_fn):
            patch.setattr(entry, "get_graphs_fn", functools.cache(entry.get_graphs_fn))
        return {case.name: _stock(program_of(case), patch) for case in VERDICTS}


def _stock(program, patch):
    calls, partition = [], VulkanPartitioner.partition

    def recorded(self, edge):
        constants = constant_names(edge)
        calls.extend(operands_of(node, constants) for node in edge.graph.nodes if node.op == "call_function")
        return partition(self, edge)

    with quiet(), patch.context() as inner:
        inner.setattr(VulkanPartitioner, "partition", recorded)
        stream = io.BytesIO()
        lower_stock({"forward": program}, VulkanOptions()).write(stream)
    return parse_pte(memoryview(stream.getvalue())), calls


def test_verdicts_of_the_runtime(lowered):
    """What is wrong at some length is a fault with its code, what is right is none, also where a file leaves sizes open."""
    found = {name: lint(file, "1.5.0") for name, (file, _) in lowered.items()}
    faults = {name: {f.code.value for f in of if f.effect != "note"} for name, of in found.items()}
    assert faults == {case.name: {case.wrong} - {""} for case in VERDICTS}
    told = {
        name: {f.code.value for f in of if f.effect == "note" and "leaves open" in f.hint}
        for name, of in found.items()
    }
    assert told == {case.name: {case.told} - {""} for case in VERDICTS}


def test_axes_are_those_of_the_exported_shapes(lowered):
    """What records say of axes holds of every node of the graphs, whose shapes are symbols."""
    seen = set()
    for name, (_, calls) in lowered.items():
        for ops in calls:
            axes = record_of(ops.operator).axes
            seen |= {ops.operator} if axes else set()
            for each in (each for each in followed(axes, ops) if each.axis.operand):
                told, others = _varies(ops, each.axis), any(_varies(ops, axis) for axis in each.others)
                assert told == others if each.surely else told <= others, (name, ops.operator, each)
    assert len(seen) > 30, seen


def _varies(ops, axis):
    value = ops.output if axis.operand == OUTPUT else ops.values[axis.operand]
    if isinstance(value, tuple):
        value = value[axis.member]
    if axis.at == NUMBER:
        return isinstance(value, Symbol)
    assert isinstance(value, Tensor)
    return axis.at in value.dynamic


def test_most_operators_say_their_axes():
    """What is left out may vary with anything; those are few."""
    without = {name for name, (newest, *_) in OPERATORS.items() if not newest.axes and not newest.replaced}
    assert len(without) < 20, sorted(without)


def test_calls_with_few_arguments(lowered):
    """Whatever a broken file leaves out of a call, no record speaks of an axis that the call does not have."""
    for name, (_, calls) in lowered.items():
        for ops in calls:
            for count in range(len(ops.values)):
                cut = replace(ops, values=dict([*ops.values.items()][:count]))
                spoken = {
                    axis.operand
                    for each in followed(record_of(ops.operator).axes, cut)
                    for axis in (each.axis, *each.others)
                }
                assert spoken <= {*cut.values, OUTPUT, ""}, (name, ops.operator, count)
