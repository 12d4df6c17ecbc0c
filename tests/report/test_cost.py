"""What a run and its stages take."""

import time

from vkfuse.report.cost import Meter


def test_stages_are_measured_apart():
    """A stage lasts until the next one; one that comes twice is one row; CPU seconds are of work and not of waiting."""
    told = []
    meter = Meter()
    progress = meter.watching(told.append)
    progress("waiting")
    time.sleep(0.2)
    progress("working")
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    progress("waiting")
    time.sleep(0.1)
    cost = meter.cost()
    assert told == ["waiting", "working", "waiting"]
    waiting, working = cost.stages
    assert (waiting.name, working.name) == ("waiting", "working")
    assert waiting.seconds >= 0.3
    assert waiting.cpu_seconds <= 0.15
    assert working.seconds >= working.cpu_seconds >= 0.19
    assert waiting.seconds + working.seconds <= cost.seconds + 0.01
    assert 0 < working.peak_rss_bytes <= waiting.peak_rss_bytes == cost.peak_rss_bytes
