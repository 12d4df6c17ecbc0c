"""The lists of what an untrusted program may name, against what torch and its libraries register."""

import importlib.util
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from torch._export.serde.serialize import _SYM_OPS, GraphModuleSerializer

from vkfuse.program.names import SYMBOLIC, is_allowed_operator, is_allowed_target


@pytest.fixture(scope="module")
def walk():
    """The tool that walks over all registered schemas."""
    path = Path(__file__).parents[2] / "tools" / "allowed_operators.py"
    spec = importlib.util.spec_from_file_location("allowed_operators", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_list_is_what_the_walk_finds(walk):
    """No operator is on the list that a rule leaves out, none is missing that all rules let pass.

    In a process of its own: vkfuse registers operators too, which no program names.
    """
    listed = json.loads((files("vkfuse.program") / "operators.json").read_text("utf-8"))
    made = subprocess.run([sys.executable, walk.__file__], check=True, capture_output=True, text=True).stdout
    assert listed == json.loads(made)


def test_what_the_walk_leaves_out_is_named(walk):
    """Files, printing, seeds, devices, memory under tensors, text, unchecked indices: none is allowed."""
    left_out = {f"{s.name}.{s.overload_name}".rstrip("."): walk.why_not(s) for s in walk.schemas()}
    expected = {
        "aten::from_file": "named file",
        "aten::save": "named save",
        "aten::_print": "named print",
        "aten::warn": "named warn",
        "aten::manual_seed": "named seed",
        "aten::set_.source_Storage": "named set",
        "aten::set_data": "named data",
        "aten::resize_": "named resize",
        "aten::record_stream": "named record",
        "aten::pin_memory": "named pin",
        "aten::_cufft_set_plan_cache_max_size": "named cufft",
        "aten::sparse_coo_tensor.indices": "named coo",
        "aten::add.str": "takes or gives text: a, b",
        "aten::add.t": "takes or gives List[t]",
        "aten::add.out": "writes to an argument that is its result",
        "aten::len.t": "takes or gives List[t]",
        "prims::device_put": "named device",
        "aten::add.Tensor": "",
        "torchao::dequantize_affine": "",
        "quantized_decomposed::embedding_4bit.dtype": "",
        "llama::update_cache": "",
    }
    assert {name: left_out[name] for name in expected} == expected


def test_no_operator_of_the_list_takes_a_file_or_a_handle(walk):
    """Of what is on the list, no schema has an argument or a result that is anything but tensors and plain values."""
    for schema in walk.schemas():
        namespace, _, name = schema.name.partition("::")
        if not is_allowed_operator(f"torch.ops.{namespace}.{name}.{schema.overload_name or 'default'}"):
            continue
        values = [*schema.arguments, *schema.returns]
        kinds = {
            str(value.type).replace("Optional[", "").replace("List[", "").rstrip("]") for value in values
        }
        plain = {"Tensor", "int", "float", "bool", "number", "complex", "str", "Device", "Generator"}
        assert kinds <= plain, schema
        texts = {a.name for a in schema.arguments if "str" in str(a.type)}
        assert not texts & {"filename", "path", "file", "s", "message", "name", "device_type"}, schema


def test_symbolic_arithmetic_is_torchs_own_table():
    """The names of `_SYM_OPS` as torch serializes them, and getitem."""
    serializer = GraphModuleSerializer.__new__(GraphModuleSerializer)
    assert {serializer.serialize_operator(op) for op in _SYM_OPS} | {"_operator.getitem"} == SYMBOLIC


@pytest.mark.parametrize(
    "target",
    [
        "_operator.attrgetter",
        "_operator.itemgetter",
        "_operator.call",
        "operator.add",
        "math.factorial",
        "torch.sym_sum",
        "torch.ops.aten.add",
        "torch.ops.aten.add.Tensor.x",
        "torch.ops.aten.add.Tensor\n",
        "torch.ops.inductor._alloc_from_pool.default",
        "torch.ops.higher_order.call_torchbind",
        "torch.ops.higher_order.cond.x",
        "torch.os.system",
        "",
    ],
)
def test_everything_else_is_not_allowed(target):
    """A list, not a pattern: what only looks like an operator is none."""
    assert not is_allowed_target(target)


def test_every_operator_of_core_aten_is_allowed():
    """Whatever torch.export decomposes to may be in a program, but for training and the memory under a tensor."""
    core = [
        op
        for packet in dir(torch.ops.aten)
        if isinstance(getattr(torch.ops.aten, packet), torch._ops.OpOverloadPacket)
        for overload in getattr(torch.ops.aten, packet).overloads()
        if torch.Tag.core in (op := getattr(getattr(torch.ops.aten, packet), overload)).tags
    ]
    refused = {str(op) for op in core if not is_allowed_operator(f"torch.ops.{op}")}
    assert len(core) > 150
    inference = {name for name in refused if not name.endswith(("out", "_backward.default"))}
    assert inference == {"aten.resize_.default", "aten.sym_storage_offset.default"}
