"""Nothing is edited in place: the program that a user hands over is afterwards what it was."""

import pytest
import torch
from programs import BOTH, LanguageModel, dequantized, export, indices, quantize, quantize_dynamic
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from torch.utils import _pytree as pytree

from vkfuse.options import BaselineChoice, Options
from vkfuse.pipeline import optimize
from vkfuse.program.load import from_exported
from vkfuse.quiet import quiet
from vkfuse.rewrite.decisions import apply
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.plan import plan
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.repairs.once import computed_once
from vkfuse.runtime.versions import DEFAULT, find_runtime

aten = torch.ops.aten


def _tied():
    module = LanguageModel(100)
    module.head.weight = module.table.weight
    quantize_dynamic(quantize(module, nn.Embedding))
    return export(module, indices(2, 7), dynamic=BOTH)


def _branches(module, x):
    return torch.cond(
        x.sum() > 10,
        lambda y: F.embedding(y, module.floats()),
        lambda y: F.embedding(y, module.floats()) * 2,
        (x,),
    )


class _Spelled(nn.Module):
    """Arguments and buffers under names that Python or torch use themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("values", torch.randint(-8, 8, (64, 64), dtype=torch.int8))
        self.register_buffer("table_q4", torch.rand(64, 2))

    def forward(self, input: torch.Tensor, id: torch.Tensor) -> dict[str, torch.Tensor]:  # noqa: A002 - the point
        table = torch.ops.torchao.dequantize_affine(
            self.values, [1, 32], self.table_q4, None, torch.int8, -8, 7
        )
        return {"max": F.embedding(id, table) + input, "id": id}


def _named_badly():
    return export(_Spelled(), torch.randn(2, 7, 64), indices(2, 7, rows=64))


PROGRAMS = {
    "tied, dynamic": _tied,
    "branches": dequantized(_branches),
    "names of Python": _named_badly,
}


def _state(exported):
    """Everything that could be edited: code of all graphs, signature, bits and identity of every tensor."""
    modules = [m for m in exported.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    tensors = {**exported.state_dict, **exported.constants}
    return (
        [m.print_readable(print_output=False) for m in modules],
        [(node.name, str(node.meta.get("val"))) for m in modules for node in m.graph.nodes],
        str(exported.graph_signature),
        str(exported.range_constraints),
        {name: (id(tensor), [_bits(t) for t in _leaves(tensor)]) for name, tensor in tensors.items()},
    )


def _leaves(tensor):
    """The plain tensors of a tensor, one unless it is of a subclass."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    return [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]


def _bits(tensor):
    return (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.detach().numpy().tobytes())


_PARTS = ("code", "metadata", "signature", "ranges", "tensors")


@pytest.mark.slow
@pytest.mark.parametrize("build", PROGRAMS.values(), ids=PROGRAMS)
def test_optimize_leaves_its_program_alone(build, tmp_path):
    """Graph, metadata, signature and tensors are the same before and after, and the program still runs alike."""
    torch.manual_seed(0)
    with quiet():
        exported = build()
    inputs = exported.example_inputs[0]
    before, result = _state(exported), pytree.tree_leaves(exported.module()(*inputs))
    optimize(exported, tmp_path / "model.pte", Options(baseline=BaselineChoice.NONE))
    after = _state(exported)
    assert [part for part, a, b in zip(_PARTS, before, after, strict=True) if a != b] == []
    assert all(map(torch.equal, result, pytree.tree_leaves(exported.module()(*inputs))))


@pytest.fixture
def exported():
    """A functional program of a tied model."""
    torch.manual_seed(0)
    with quiet():
        return from_exported(_tied()).exported


def test_the_rewritten_program_runs_alike(exported):
    """Before any lowering, by the operators' own definitions: the numbers of the program, and the user's signature."""
    plans = plan({"forward": exported}, find_runtime(DEFAULT))
    rewritten = apply(exported, plans["forward"])
    targets = {str(node.target) for node in rewritten.graph.nodes}
    assert {"et_vk.embedding_q4gsw.default", "et_vk.linear_dq8ca_q4gsw.default"} <= targets
    assert not any("dequantize_affine" in target for target in targets)
    assert rewritten.graph_signature.user_inputs == exported.graph_signature.user_inputs
    for shape in ((2, 7), (3, 16)):
        tokens = indices(*shape)
        expected = exported.module()(tokens)
        error = (rewritten.module()(tokens) - expected).abs().max()
        assert error < 2e-2 * expected.abs().max()


def test_equal_constants_are_one(exported):
    """Asked for twice, by content and not by identity, a constant is one placeholder; what nothing reads dies."""
    editor = GraphEditor(exported)
    output = next(iter(exported.graph.find_nodes(op="output")))
    (result,) = output.args[0]
    first = editor.constant(torch.full((1,), 2.0), "two")
    assert editor.constant(torch.full((1,), 2.0), "another") is first
    assert editor.constant(torch.full((1,), 2, dtype=torch.int32), "two") is not first
    assert editor.constant(torch.full((1, 1), 2.0), "two") is not first
    with editor.before(output):
        editor.replace(result, editor.call(aten.mul.Tensor, editor.node(result), first))
    edited = editor.finish()
    assert set(edited.state_dict) - set(exported.state_dict) == {"two"}
    (tokens,) = exported.example_inputs[0]
    assert torch.equal(edited.module()(tokens), exported.module()(tokens) * 2)


@pytest.mark.parametrize("parts", [None, 1], ids=["a-weight", "a-module"])
def test_a_new_constant_takes_no_name(exported, parts):
    """A constant under the name of a weight or of a module gets another; what was there stays."""
    editor = GraphEditor(exported)
    taken = ".".join(next(name for name in exported.state_dict if "." in name).split(".")[:parts])
    node = editor.constant(torch.zeros(3), taken)
    output = next(iter(exported.graph.find_nodes(op="output")))
    (result,) = output.args[0]
    with editor.before(output):
        total = editor.call(aten.sum.default, node)
        editor.replace(result, editor.call(aten.add.Tensor, editor.node(result), total))
    edited = editor.finish()
    (added,) = set(edited.state_dict) - set(exported.state_dict)
    assert torch.equal(edited.state_dict[added], torch.zeros(3))
    (tokens,) = exported.example_inputs[0]
    assert torch.equal(edited.module()(tokens), exported.module()(tokens))


def test_a_repair_of_one_node(exported):
    """A function of one node is a repair, which names what it replaced; where that is nothing, the program is itself."""
    seen = []

    @replaces(aten.embedding.default, code="doubled", detail="twice")
    def doubled(editor, node):
        """Double a lookup."""
        seen.append(node.name)
        rows = editor.call(node.target, *node.args)
        return editor.call(aten.add.Tensor, rows, editor.cast(rows, torch.float32))

    nothing = replaces(code="nothing", detail="nothing")(lambda: None)
    assert nothing(exported) == (exported, ())
    repaired, (repair,) = doubled(exported)
    assert (repair.code, repair.nodes, doubled.__name__) == ("doubled", tuple(seen), "doubled")
    assert seen
    assert repaired.graph is not exported.graph
    (tokens,) = exported.example_inputs[0]
    assert not torch.equal(repaired.module()(tokens), exported.module()(tokens))


def test_a_new_node_has_a_place(exported):
    """Outside of a place in the graph nothing is inserted."""
    editor = GraphEditor(exported)
    with pytest.raises(ValueError, match="no place"):
        editor.call(aten.relu.default, next(iter(exported.graph.nodes)))


def test_state_that_is_written_alike_stays_two():
    """Two buffers that always get the same have a result each, which a signature needs; each gets it."""

    class Alike(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("one", torch.zeros(4))
            self.register_buffer("two", torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            read = self.one + self.two
            self.one.copy_(x * 2)
            self.two.copy_(x * 2)
            return read

    exported = from_exported(torch.export.export(Alike(), (torch.randn(4),))).exported
    repaired, _ = computed_once(exported)
    assert {*repaired.graph_signature.buffers_to_mutate.values()} == {"one", "two"}
    run = repaired.module()
    run(torch.full((4,), 3.0))
    assert run(torch.zeros(4)).tolist() == [12.0] * 4
