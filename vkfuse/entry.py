"""The public `optimize`: programs are lowered with torch and ExecuTorch, a .pte is rewritten without them."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vkfuse.entries import MissedError
from vkfuse.options import Options, Progress
from vkfuse.output import published
from vkfuse.pages import seldom_collected
from vkfuse.patch.stages import optimize_file
from vkfuse.program.methods import METHOD, checked_methods
from vkfuse.pte import read_pte
from vkfuse.pte.reader import given_as_pte
from vkfuse.report.model import Result
from vkfuse.runs import repeated

if TYPE_CHECKING:
    from vkfuse.pipeline import Source


@seldom_collected()
def optimize(
    source: "Source | Mapping[str, Source]",
    output: Path | str,
    options: Options | None = None,
    *,
    progress: Progress = lambda _stage: None,
    **changes: Any,
) -> Result:
    """Turn a .pt2, an exported program in memory, or a .pte into a small, loadable and proven .pte at `output`.

    What a path leads to is told by its first bytes. A mapping gives several programs by the names of their methods.
    `changes` are options by name, as in ``optimize(program, "model.pte", runtime="1.4")``.

    Raises InputError, UnsafePickleError, OutputError, LoweringError, CheckFailedError where the file's own bytes compute
    something else than the program, and GatesFailedError, which has the report, where one of the gates fails; then `output`
    is what it was before.
    """
    if isinstance(source, Path | str) and given_as_pte(source):
        chosen = (options or Options()).changed(changes)
        return optimize_file(read_pte(source), Path(output), chosen, progress=progress)
    with contextlib.suppress(MissedError):
        return _repeated(source, Path(output), (options or Options()).changed(changes), progress)
    from vkfuse import pipeline  # noqa: PLC0415 - imports torch

    return pipeline.optimize(source, output, options, progress=progress, **changes)


def _repeated(
    source: "Source | Mapping[str, Source]", output: Path, options: Options, progress: Progress
) -> Result:
    """Write what an earlier run wrote for the same files. MissedError, and what `optimize` raises."""
    sources = checked_methods(source if isinstance(source, Mapping) else {METHOD: source})
    paths = {name: Path(of) for name, of in sources.items() if isinstance(of, Path | str)}
    if options.cache is None or len(paths) < len(sources):
        raise MissedError("no cache, or programs in memory")
    options.check_gates()
    with published(output, (*paths.values(), options.given_baseline)) as places:
        return repeated(paths, output, options, into=places.model, progress=progress)
