"""Files of every backend of ExecuTorch's wheel, of two methods and with external data, as stock lowering writes them."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from vkfuse.measure.ledger import ledger, parts
from vkfuse.pte import read_ptd, read_pte

NAMES = [
    f"{backend}-{kind}"
    for backend in ("portable", "xnnpack", "vulkan")
    for kind in ("one", "two", "external")
]
DELEGATES = {"portable": None, "xnnpack": "XnnpackBackend", "vulkan": "VulkanBackend"}


@pytest.mark.parametrize("name", NAMES)
def test_labels_sum_to_the_byte(backends, name):
    """Every byte has one label, with and without the external data, and the parts lie beside each other."""
    data = backends / f"{name}.ptd"
    for external in ({}, read_ptd(data)) if data.exists() else ({},):
        pte = read_pte(backends / f"{name}.pte", external=external)
        assert sum(entry.bytes for entry in ledger(pte)) == pte.size
        ends = [0, *(part.at.end for part in parts(pte))]
        assert ends == [*(part.at.offset for part in parts(pte)), pte.size]
        assert Counter(entry.kind for entry in ledger(pte))["unreferenced"] == 0


def _report(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "vkfuse", "report", "--no-config", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_all_are_described(backends):
    """One run over all of them: methods, delegates by backend, bytes; a backend that is not Vulkan's is a note."""
    ran = _report(*(backends / f"{name}.pte" for name in NAMES), "--format=json", "--require=loadable")
    assert ran.returncode == 0, ran.stderr
    for name, report in zip(NAMES, json.loads(ran.stdout)["reports"], strict=True):
        backend, kind = name.split("-")
        assert sum(entry["bytes"] for entry in report["ledger"]) == report["output"]["bytes"]
        assert [method["name"] for method in report["methods"]] == ["forward", "other"][: 1 + (kind == "two")]
        delegate = DELEGATES[backend]
        assert set(report["delegation"]["backends"]) == ({delegate} if delegate else set())
        notes = {finding["code"] for finding in report["loadable"]["findings"]}
        assert ("other-backend" in notes) is (backend == "xnnpack")
        assert (report["output"]["weights"] is None) is (backend == "xnnpack")


@pytest.mark.parametrize("name", ["portable-two", "xnnpack-one", "vulkan-two"])
def test_two_backends_are_compared(backends, name):
    """A diff of any two sums to the difference of their sizes."""
    ran = _report(backends / f"{name}.pte", backends / "portable-one.pte", "--format=json")
    diff = json.loads(ran.stdout)["diff"]
    assert sum(change["delta"] for change in diff["ledger"]) == diff["total"]["delta"]


@pytest.mark.parametrize("corrupt", ["empty", "cut", "other", "offset", "missing", "folder"])
def test_what_is_no_pte_ends_with_code_2(backends, tmp_path, corrupt):
    """One line says what is wrong with which file, and nothing is printed, whatever was wanted."""
    data = bytearray((backends / "vulkan-two.pte").read_bytes())
    path = tmp_path / "model.pte"
    match corrupt:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "other":
            path.write_bytes(b"\x7fELF" + bytes(400))
        case "offset":
            data[:4] = b"\xff\xff\xff\x7f"
            path.write_bytes(data)
        case "folder":
            path.mkdir()
    page = tmp_path / "report.html"
    ran = _report(path, backends / "vulkan-one.pte", f"--report={page}", "--max-size=1GiB")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("vkfuse: error: ")
    assert str(path) in ran.stderr
    assert not page.exists()
