"""What verifying adds to optimizing: CPU seconds of MiniLM at 64 tokens, with and without, in one run.

    python benchmarks/verify_share.py

One thread, CPU time, the better of two runs each: other work on the machine does not show.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "optimize")]

from real_models import encoder  # noqa: E402 - from the tests' own folders

from vkfuse.lower.quiet import quiet  # noqa: E402 - likewise
from vkfuse.options import BaselineChoice, Options  # noqa: E402 - likewise
from vkfuse.pipeline import optimize  # noqa: E402 - likewise


def cpu_seconds(source: Path, baseline: BaselineChoice, *, verify: bool) -> float:
    """Of one call of `optimize`."""
    start = time.process_time()
    optimize(source, source.with_suffix(".pte"), Options(baseline=baseline, verify=verify))
    return time.process_time() - start


def main() -> None:
    """Print a line a setting."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "minilm.pt2"
        for linears in (False, True):
            with quiet():
                torch.export.save(encoder(batch=1, linears=linears, length=64), source)
            cpu_seconds(source, BaselineChoice.NONE, verify=True)  # imports, caches
            for baseline in (BaselineChoice.FOLDED, BaselineChoice.NONE):
                with_it, without = (
                    min(cpu_seconds(source, baseline, verify=verify) for _ in range(2))
                    for verify in (True, False)
                )
                name = f"{'int4 linears' if linears else 'embedding only'}, baseline {baseline}"
                print(f"{name}: {with_it:.1f} s with, {without:.1f} s without: {with_it / without - 1:+.1%}")


if __name__ == "__main__":
    main()
