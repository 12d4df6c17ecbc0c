"""An untrusted .pt2 runs no code: each archive here would leave a file, or import a module, if it were just loaded."""

import contextlib
import copy
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from archives import MODEL, WEIGHT, WEIGHTS, Touch, take_apart, torch_file
from techniques import TWO_FACES, UNIMPORTED, Bombs, Hostile, Silent, as_class, techniques, ways, write

from vkfuse.errors import InputError, UnsafePickleError, VkfuseError
from vkfuse.program.check import open_checked
from vkfuse.program.load import load

MARK = Path("RAN")
MOST_SECONDS, MOST_BYTES = 10, 1 << 30
AFTER_TORCH = {  # found in what torch rebuilds, not in what the file declares
    "full_of_2_gib_that_declares_little",
    "pickled_weight_expanded_to_2_gib",
    "example_input_expanded_to_2_gib",
    "storage_made_by_a_pickle",
    "state_of_a_function",
    "state_of_a_class",
    "storage_that_grows",
    "tuples_that_share_tuples",
    "tuples_that_share_tuples_as_a_key",
    "lists_that_share_lists",
    "list_within_itself",
}


@pytest.fixture(scope="module")
def archive(program):
    """The members of a good archive; take a copy."""
    return take_apart(program)


def _written(archive, folder):
    path = folder / "model.pt2"
    path.write_bytes(archive.encoded())
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("way", [name for name, _ in techniques(MARK)])
def test_nothing_of_a_hostile_archive_runs(way, archive, tmp_path):
    """The archive is refused with a remedy, before torch sees it, and neither code nor import has happened."""
    mark = tmp_path / "ran"
    hostile = copy.deepcopy(archive)
    dict(techniques(mark))[way](hostile)
    path = _written(hostile, tmp_path)
    sys.modules.pop(UNIMPORTED, None)
    try:
        if way not in AFTER_TORCH:
            with pytest.raises(InputError) as refused:
                open_checked(path)
            assert refused.value.hint
            assert str(path) in refused.value.message
    finally:
        with pytest.raises(InputError):
            load(path)
        assert not mark.exists()
        assert UNIMPORTED not in sys.modules


@pytest.mark.parametrize("way", ways(Silent))
def test_source_in_fields_that_nothing_needs_is_left_out(way, archive, tmp_path):
    """The program loads, and what stood there is gone, or a line of text in a stack trace."""
    mark = tmp_path / "ran"
    hostile = copy.deepcopy(archive)
    hostile.edit_json(MODEL, getattr(Silent(mark), way))
    checked = open_checked(_written(hostile, tmp_path))
    load(checked).exported.module()
    assert not mark.exists()
    for node in checked.model["graph_module"]["graph"]["nodes"]:
        trace = node["metadata"].pop("stack_trace", "")
        assert all(line.isprintable() for line in trace.split("\n"))
    assert "system" not in json.dumps(checked.model)


@pytest.mark.parametrize("field", ["class", "__init__", "self", "fx_pytree", "Å"])
def test_fields_of_a_class_are_only_keys(field, archive, tmp_path):
    """The output of a class of any name is a dictionary of its field, be that a word of Python's, and computes the same."""
    hostile = copy.deepcopy(archive)
    as_class(hostile, [field], kind="__main__.exec")
    after = load(_written(hostile, tmp_path)).exported
    (tmp_path / "before").mkdir()
    before = load(_written(archive, tmp_path / "before")).exported  # a file that is mapped stays as it is
    (inputs,), _ = before.example_inputs
    assert torch.equal(after.module()(inputs)[field], before.module()(inputs))


@pytest.mark.parametrize("field", ["class", "self", "a.b", "arg_0"])
def test_keywords_that_are_no_names_are_refused(field, archive, tmp_path):
    """A name of an input that cannot be one in Python ends in an error that names the file, and not in a traceback."""
    hostile = copy.deepcopy(archive)
    as_class(hostile, [field], kind="builtins.dict", part="in_spec")
    with pytest.raises(VkfuseError, match=r"model\.pt2"):
        load(_written(hostile, tmp_path))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_command_line_refuses_each_in_time(program, tmp_path):
    """`vkfuse inspect` of each technique: exit code 2, one line and a hint, in 10 s and 1 GiB, and nothing runs.

    Those that are seen without torch are as fast as that allows; of the others, which need its import, one is run.
    """
    mark = tmp_path / "ran"
    written = write(program, tmp_path, mark)
    chosen = [name for name in written if name not in AFTER_TORCH] + ["full_of_2_gib_that_declares_little"]
    odd = {name: seen for name in chosen if (seen := _inspected(written[name])) is not None}
    assert odd == {}
    assert not mark.exists()


def test_an_error_steers_no_terminal(archive, tmp_path):
    """What upstream quotes of a program in its message reaches the terminal without its control characters."""
    hostile = copy.deepcopy(archive)
    hostile.edit_json(MODEL, _steer)
    path = _written(hostile, tmp_path)
    run = subprocess.run(
        [sys.executable, "-m", "vkfuse", "inspect", str(path)],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert run.returncode == 3
    assert b"no_such" in run.stderr
    assert b"\x1b" not in run.stderr


def _steer(model):
    first = model["graph_module"]["graph"]["nodes"][0]
    first["inputs"][1]["arg"]["as_string"] = "no_such\x1b[31m"


def _inspected(path):
    """What is wrong with how `vkfuse inspect` ends, None where nothing is."""
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "vkfuse", "inspect", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    err = process.stderr.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds, peak = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024
    told = err.count("vkfuse: error: ") == 1 and "  hint: " in err and "Traceback" not in err
    fine = process.returncode == 2 and told and seconds < MOST_SECONDS and peak < MOST_BYTES
    return None if fine else (process.returncode, seconds, time.monotonic() - start, peak, err[-500:])


def test_a_large_result_within_a_branch_is_refused(tmp_path):
    """Bounds hold for every graph of a program: what a branch computes is run by verify too."""

    class Branches(torch.nn.Module):
        def forward(self, x):
            large = lambda v: v + torch.full((1 << 28,), 0.5).sum()  # noqa: E731 - a branch
            return torch.cond(x.sum() > 0, large, lambda v: v.sin(), (x,))

    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(Branches(), (torch.randn(3),)), path)
    with pytest.raises(InputError, match="--max-memory"):
        load(path)
    load(path, max_memory=4 << 30)


@pytest.mark.parametrize(
    ("sizes", "strides", "offset"),
    [([4], [-1], 3), ([4], [1], -1), ([-4], [1], 0), ([4], [1], 61), ([8, 9], [8, 1], 0), ([4], [2**62], 0)],
    ids=str,
)
def test_a_raw_weight_stays_within_its_bytes(sizes, strides, offset, archive, tmp_path):
    """Sizes, strides and offsets of a stored tensor reach neither before nor behind what its member holds."""
    hostile = copy.deepcopy(archive)
    hostile.members[WEIGHT] = bytes(4 * 64)

    def change(config):
        entry = config["config"]["table.weight"]
        entry["use_pickle"] = False
        of = {"sizes": sizes, "strides": strides}
        entry["tensor_meta"].update({key: [{"as_int": n} for n in numbers] for key, numbers in of.items()})
        entry["tensor_meta"]["storage_offset"] = {"as_int": offset}

    hostile.edit_json(WEIGHTS, change)
    with pytest.raises(InputError, match=r"values are stored|sizes that are none"):
        load(_written(hostile, tmp_path))


def test_bombs_are_allowed_to_those_who_ask(archive, tmp_path):
    """A bound that the user gives takes the place of the default one, for larger and for smaller."""
    large, small = copy.deepcopy(archive), copy.deepcopy(archive)
    Bombs().many_constants(large)
    path = _written(large, tmp_path)
    with pytest.raises(InputError, match="--max-memory"):
        open_checked(path)
    open_checked(path, max_memory=4 << 30)
    with pytest.raises(InputError, match="--max-memory"):
        open_checked(_written(small, tmp_path), max_memory=1000)


@pytest.mark.parametrize("hide", TWO_FACES.values(), ids=TWO_FACES)
@pytest.mark.parametrize("member", [MODEL, WEIGHT], ids=["expression", "weight"])
def test_what_was_checked_is_what_is_loaded(hide, member, archive, tmp_path):
    """A file that shows Python's zip reader one archive and torch's another runs nothing of the other."""
    mark = tmp_path / "ran"
    hostile, shown = copy.deepcopy(archive), copy.deepcopy(archive)
    if member == MODEL:
        Hostile(mark).expression_as_a_size(hostile)
    else:
        Hostile(mark).weight_of_protocol_2(hostile)
    size = max(len(a.members[member]) for a in (hostile, shown))
    for each in (hostile, shown):
        padding = size - len(each.members[member])
        each.members[member] += b" " * padding if member == MODEL else b""
        each.members["extra/padding"] = b"" if member == MODEL else b" " * padding
    path = tmp_path / "hostile.pt2"
    path.write_bytes(hide(shown.encoded(), hostile.encoded()))
    with contextlib.suppress(InputError):
        load(path)
    assert not mark.exists()


def test_the_refused_name_is_told(archive, tmp_path):
    """The error names what the pickle wanted to import, and the option for those who trust the file."""
    hostile = copy.deepcopy(archive)
    hostile.members[WEIGHT] = torch_file(pickle.dumps(Touch(tmp_path / "ran"), protocol=4))
    with pytest.raises(UnsafePickleError, match=r"posix\.system") as refused:
        load(_written(hostile, tmp_path))
    assert "--allow-pickle" in refused.value.hint


def test_the_refused_node_is_told(archive, tmp_path):
    """The error names the node and what it would call."""
    hostile = copy.deepcopy(archive)
    dict(techniques(tmp_path / "ran"))["file_reader"](hostile)
    with pytest.raises(UnsafePickleError, match=r"node made: 'torch\.ops\.aten\.from_file\.default'"):
        open_checked(_written(hostile, tmp_path))


def test_with_allow_pickle_the_user_decides(archive, tmp_path):
    """The option lets a pickle through that the guard refuses; it is the only thing that does."""
    mark = tmp_path / "ran"
    trusted = copy.deepcopy(archive)
    trusted.members["data/sample_inputs/model.pt"] = torch_file(pickle.dumps(Touch(mark), protocol=2))
    path = _written(trusted, tmp_path)
    with pytest.raises(UnsafePickleError):
        load(path)
    assert not mark.exists()
    with pytest.raises(InputError):  # an exit code is no example input
        load(path, allow_pickle=True)
    assert mark.exists()


def test_an_archive_put_together_again_still_loads(archive, tmp_path):
    """What the tests change is what is refused: the same members unchanged load."""
    path = _written(archive, tmp_path)
    assert load(path).bytes == path.stat().st_size
