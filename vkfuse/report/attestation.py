"""A report as an in-toto Statement, for those who sign: vkfuse emits it and signs nothing.

Source: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
"""

import json
from pathlib import PurePath
from typing import Any, Final

from vkfuse.report.model import SCHEMA, Report
from vkfuse.report.serial import to_json

STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "vkfuse:" + SCHEMA.removeprefix(
    "vkfuse."
)  # a URI of a scheme of its own: vkfuse has no host


def statement(report: Report) -> dict[str, Any]:
    """Return the Statement whose subject is the written file, by its SHA-256, and whose predicate is the report."""
    output = report.output
    subject = (
        [] if output is None else [{"name": PurePath(output.path).name, "digest": {"sha256": output.sha256}}]
    )
    return {"_type": STATEMENT, "subject": subject, "predicateType": PREDICATE, "predicate": to_json(report)}


def dumps(report: Report) -> str:
    """Return the Statement as JSON text."""
    return json.dumps(statement(report), indent=2, allow_nan=False) + "\n"
