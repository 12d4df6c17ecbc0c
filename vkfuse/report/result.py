"""What a run made."""

from dataclasses import dataclass
from pathlib import Path

from vkfuse.report.model import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The report and, of `optimize`, the path that was written."""

    report: Report
    output: Path | None
