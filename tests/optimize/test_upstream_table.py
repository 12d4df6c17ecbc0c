"""Every input that the installed ExecuTorch makes wrong, unloadable or not at all, and what vkfuse makes of it."""

import numpy as np
import pytest
import rows_convolutions
import rows_graphs
import rows_linears
import rows_lookups
import torch
from outcome import worst_error
from rows_linears import FLOAT_HEAD, TIED
from upstream_row import Table

from vkfuse.lint import faults, lint
from vkfuse.pte import read_pte
from vkfuse.pte.vulkan import vulkan_graphs

ROWS = (*rows_lookups.ROWS, *rows_linears.ROWS, *rows_convolutions.ROWS, *rows_graphs.ROWS)
_PACK_READERS = {  # operator: position of its packed weight
    "et_vk.embedding_q4gsw.default": 0,
    "et_vk.linear_q4gsw.default": 1,
    "et_vk.linear_dq8ca_q4gsw.default": 3,
}


def _tables(report):
    """The report's tables as the rows write them, a refusal by its code."""
    return tuple(
        Table(rung=row.rung, how=row.how, reason=row.reason.partition(":")[0]) for row in report.tables
    )


def _more_inputs(row):
    """Inputs of the row's other lengths; 64 rows stand in every table."""
    floats = any(len(shape) == 3 for shape in row.lengths)
    return [(torch.randn(s) if floats else torch.randint(0, 64, s),) for s in row.lengths]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row(row, outcome_of):
    """The file loads, computes what the program does, and the report says what became of each table and why."""
    outcome = outcome_of(row.build)
    report = outcome.report
    assert _tables(report) == row.tables
    assert set(row.repairs) <= {repair.code for repair in report.repairs}
    assert all(table.proof.kind == "exact" and table.proof.max_abs_error == 0 for table in report.tables)
    assert report.loadable.ok
    assert report.verify.ok
    assert not faults(lint(read_pte(outcome.path)))
    assert all(operator.reason for operator in report.delegation.cpu.values())
    assert worst_error(outcome.exported, outcome.path, _more_inputs(row)) <= row.bound


def _nibbles(exported):
    """The program's own 4-bit table, packed here: even column in the low nibble, each value plus 8."""
    weight = exported.state_dict["table.weight" if "table.weight" in exported.state_dict else _raw(exported)]
    values = (weight.qdata if hasattr(weight, "qdata") else weight).numpy().astype(np.int16) + 8
    return (values[:, 0::2] | values[:, 1::2] << 4).astype(np.uint8)


def _raw(exported):
    """The name of the integer values of an unwrapped table."""
    return next(k for k, v in exported.state_dict.items() if "table" in k and v.dtype == torch.int8)


def _packs(path):
    """What each 4-bit operator of the file reads: (operator, bytes of its packed weight)."""
    found = []
    for graph in vulkan_graphs(read_pte(path)).values():
        for call in graph.chain:
            if call.name in _PACK_READERS:
                weight = graph.values[call.args[_PACK_READERS[call.name]]]
                found.append((call.name, bytes(weight.data)))
    return found


@pytest.mark.parametrize("row", TIED, ids=lambda row: row.name)
def test_tied_table_is_stored_once(row, outcome_of):
    """Lookup and head read one pack: its bytes, packed here from the program, stand once in the file."""
    outcome = outcome_of(row.build)
    nibbles = _nibbles(outcome.exported)
    data = outcome.path.read_bytes()
    first_rows = nibbles[:32].tobytes() if nibbles.shape[1] % 16 == 0 else nibbles[0].tobytes()
    assert data.count(first_rows) == 1
    readers = {name for name, pack in _packs(outcome.path) if pack.startswith(first_rows)}
    assert "et_vk.embedding_q4gsw.default" in readers
    assert readers & {"et_vk.linear_q4gsw.default", "et_vk.linear_dq8ca_q4gsw.default"}
    assert len({pack for _, pack in _packs(outcome.path) if pack.startswith(first_rows)}) == 1


def test_float_head_keeps_its_floats(outcome_of):
    """A head that was left float is stored as it is, beside the 4-bit table, and the table's pack once."""
    outcome = outcome_of(FLOAT_HEAD.build)
    data = outcome.path.read_bytes()
    head = outcome.exported.state_dict["head.weight"].detach().numpy()
    assert data.count(_nibbles(outcome.exported).tobytes()) == 1
    assert data.count(head.tobytes()) + data.count(np.ascontiguousarray(head.T).tobytes()) == 1
