"""`vkfuse report NEW.pte [BASE.pte]`: what is in a file, and what changed since another."""

import hashlib
from pathlib import Path

from vkfuse.errors import InputError
from vkfuse.pte import Graphs, PteFile, read_pte, vulkan_graphs
from vkfuse.pte.ledger import ledger
from vkfuse.pte.runtimes import DEFAULT, find_runtime
from vkfuse.report.build import baseline_of, delegation_of, loadable_of
from vkfuse.report.diff import diff_of, same_bytes
from vkfuse.report.file_tables import tables_of
from vkfuse.report.model import Diff, OutputFile, Report


def report_files(new: Path, base: Path | None = None, runtime: str = DEFAULT) -> Report:
    """Measure `new`, against `base` where it is given; `-` is stdin. InputError, FormatError."""
    if base is not None and str(new) == str(base) == "-":
        raise InputError("both files are stdin", hint="give one of them as a path")
    target = find_runtime(runtime)
    pte = read_pte(new)
    graphs = vulkan_graphs(pte)
    before = None if base is None else read_pte(base)
    return Report(
        runtime=target.version,
        output=OutputFile(path=pte.path, bytes=pte.size, sha256=hashlib.sha256(pte.data).hexdigest()),
        baseline=None if before is None else baseline_of("file", before, runtime),
        delegation=delegation_of(pte, runtime=runtime, graphs=graphs),
        loadable=loadable_of(pte, runtime, graphs=graphs),
        tables=tables_of(pte, graphs),
        ledger=ledger(pte, graphs=graphs),
        diff=None if before is None else compare(pte, before, graphs, runtime),
        notes=(target.note,) if target.note else (),
    )


def compare(new: PteFile, base: PteFile, graphs: Graphs | None = None, runtime: str = DEFAULT) -> Diff:
    """Return `new` against `base`. FormatError."""
    sides = (vulkan_graphs(new) if graphs is None else graphs, vulkan_graphs(base))
    new_graphs, base_graphs = sides
    return diff_of(
        (new.size, base.size),
        (ledger(new, graphs=new_graphs), ledger(base, graphs=base_graphs)),
        (
            delegation_of(new, runtime=runtime, graphs=new_graphs),
            delegation_of(base, runtime=runtime, graphs=base_graphs),
        ),
        (tables_of(new, new_graphs), tables_of(base, base_graphs)),
        identical=same_bytes(new, base),
    )
