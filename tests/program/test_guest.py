"""vkfuse is a guest in its caller's process: what it changes while it works is afterwards as it was found."""

import io
import logging
import os
import sys
import threading
import time
import warnings

import pytest
import torch

from vkfuse.errors import InputError, VkfuseError
from vkfuse.options import BaselineChoice, Options, Storage, VulkanOptions
from vkfuse.pipeline import inspect
from vkfuse.quiet import quiet


def _state():
    """What a run could leave changed."""
    return {
        "stdout": sys.stdout,
        "stderr": sys.stderr,
        "disabled": logging.root.manager.disable,
        "level": logging.root.level,
        "handlers": [*logging.root.handlers],
        "filters": [*warnings.filters],
        "load": torch.load,
        "directory": os.getcwd(),  # noqa: PTH109 - as the system says it
        "grad": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "seed": torch.random.get_rng_state().tolist(),
    }


@pytest.fixture
def host():
    """A process with settings of its own."""
    logging.disable(logging.INFO)
    handler = logging.StreamHandler(io.StringIO())
    logging.root.addHandler(handler)
    yield
    logging.root.removeHandler(handler)
    logging.disable(logging.NOTSET)


def _upstream():
    logging.basicConfig(force=True)
    logging.getLogger().setLevel(logging.DEBUG)
    print("upstream")  # noqa: T201 - what is muted
    warnings.simplefilter("error")
    raise ZeroDivisionError


def _fails():
    with pytest.raises(ZeroDivisionError), quiet():
        _upstream()


def _cannot_load(tmp_path):
    bad = tmp_path / "bad.pt2"
    bad.write_bytes(b"PK\3\4")
    with pytest.raises(InputError):
        inspect(bad)


@pytest.mark.slow
@pytest.mark.usefixtures("host")
def test_the_process_is_left_as_it_was(program, tmp_path, capsys):
    """Streams, logging, warning filters, torch.load, threads, gradients, the random state: after a run and after errors."""
    before = _state()
    inspect(program)
    assert _state() == before
    _cannot_load(tmp_path)
    assert _state() == before
    _fails()
    assert _state() == before
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_two_threads_take_turns(program):
    """Both runs give what one gives alone, and stdout is the caller's, open, afterwards."""
    alone = [(t.name, t.rung) for t in inspect(program).report.tables]
    found, stream = [], sys.stdout

    def run():
        found.append([(t.name, t.rung) for t in inspect(program).report.tables])

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone, alone]
    assert sys.stdout is stream
    assert not stream.closed


def test_what_other_threads_print_is_theirs(capsys):
    """A host that logs while vkfuse works in another thread keeps its output."""
    inside, done = threading.Event(), threading.Event()

    def work():
        with quiet():
            print("upstream")  # noqa: T201 - what is muted
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(10)
    print("host")  # noqa: T201 - what is kept
    done.set()
    thread.join()
    assert capsys.readouterr().out == "host\n"


def test_a_thread_waits_for_its_turn():
    """Two are never within at once."""
    within, most = [], []

    def work():
        with quiet():
            within.append(1)
            most.append(len(within))
            time.sleep(0.05)
            within.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"runtime": 1.5}, "runtime is 1.5", "give str"),
        ({"verify": "yes"}, "verify is 'yes'", "give bool"),
        ({"fp16": 1}, "fp16 is 1", "give bool"),
        ({"storage": "tex"}, "storage is 'tex'", "texture, buffer"),
        ({"baseline": None}, "baseline is None", "folded, stock, none"),
        ({"max_memory": 1.5}, "max_memory is 1.5", "give int or None"),
        ({"max_memory": "much"}, "max_memory: 'much' is no size", ""),
        ({"vulkan": {}}, "vulkan is {}", "give VulkanOptions"),
        ({"baselin": "none"}, "no option 'baselin'", "baseline"),
    ],
    ids=str,
)
def test_options_of_a_wrong_type_are_one_clear_error(changes, message, hint, program):
    """Before any work, with what would be right."""
    with pytest.raises(VkfuseError, match=message) as wrong:
        inspect(program, **changes)
    assert hint in wrong.value.hint


def test_options_may_be_given_by_their_words(tmp_path):
    """What the command line takes as a word, Python takes as a string."""
    made = Options(baseline="none").changed({"storage": "buffer", "fp16": True})
    assert made == Options(
        baseline=BaselineChoice.NONE, vulkan=VulkanOptions(storage=Storage.BUFFER, fp16=True)
    )
    assert Options(baseline=str(tmp_path / "a.pte")).baseline == tmp_path / "a.pte"
