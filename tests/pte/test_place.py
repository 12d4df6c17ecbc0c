"""Where things stand in a file, and that what is worked out from one is kept with it."""

import dataclasses

from vkfuse.lint import lint
from vkfuse.measure.tables import table_reads
from vkfuse.pte import read_pte, vulkan_graphs
from vkfuse.pte.place import Place


def test_a_place_is_spelled_by_what_it_names():
    """Methods, delegates and calls of either, as the reports have always spelled them."""
    delegate = Place("forward", 0)
    spelled = [str(p) for p in (Place("forward"), delegate, delegate.at(3), Place("forward", call=3))]
    assert spelled == ["forward", "forward/0", "forward/0:3", "forward:3"]
    assert delegate.at(3).around == delegate
    assert Place("forward", call=3).around == Place("forward")


def test_what_is_worked_out_of_a_file_is_kept(files):
    """A file is decoded and judged once, for each runtime; another file, made of it or not, is another."""
    pte = read_pte(files / "fused.pte")
    for work in (vulkan_graphs, lint, table_reads):
        assert work(pte) is work(pte), work
    assert lint(pte, "1.2") != lint(pte)
    assert vulkan_graphs(dataclasses.replace(pte, methods=())) == {}
    assert vulkan_graphs(read_pte(files / "fused.pte")) is not vulkan_graphs(pte)
