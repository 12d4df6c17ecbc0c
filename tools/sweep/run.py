"""Put swept programs through vkfuse and through ExecuTorch's own lowering, and each file on a real runtime.

    python tools/sweep/run.py 0 1000 --runner PATH -o verdicts.jsonl -j 8

A line of JSON for each program and flow says what vkfuse says of the file ("says": what its lint and its verify find), and
what the runtime does with it, called twice at the shortest, a middle and the longest length on one loaded method. runner.py
says how the runner is called; by default it is the environment's VKFUSE_RUNNER. Programs that are already in the output are
left out, so that a run goes on where it was stopped. Verdicts:

- right: certified, and right on the runtime. With no runner: certified.
- certified but wrong; certified but does not load; certified but does not run.
- refused but right: not certified, though this file, or stock's, is right on the runtime. refused: any other refusal.
- fault: vkfuse raised what is none of its own errors, or did not end.

An output is right if each value is within 1e-3 of the largest value of eager's, or of where eager's lies when each step
is off by rounding; in half precision within 8e-2, since the runtime's sums are in half too; behind 8-bit activations
within 5e-2; behind a gelu, which it computes by tanh, within 1e-3 absolute. Behind a step that jumps (a comparison, a
rounding) one value and one in 100 may differ.
Programs that torch does not export, or that compute what is no number, are not counted.
"""

import argparse
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

FLOWS: Final = ("vkfuse", "stock")
_BATCH: Final = 100  # programs a process: what torch and ExecuTorch keep goes with it


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=int, nargs="?", default=0)
    parser.add_argument("end", type=int, nargs="?", default=0)
    parser.add_argument("--only", type=int, nargs="*", default=[], help="these programs, and no others")
    parser.add_argument(
        "--specs", type=Path, help="programs by their specs, a line each; each by its `flows`"
    )
    parser.add_argument("--runner", default=os.environ.get("VKFUSE_RUNNER", ""))
    parser.add_argument("--runtime", help="the runner's version; by default that of the installed ExecuTorch")
    parser.add_argument("-o", "--output", type=Path, default=Path("verdicts.jsonl"))
    parser.add_argument("-j", "--jobs", type=int, default=1)
    parser.add_argument("--timeout", type=int, default=120, help="seconds for one program")
    parser.add_argument(
        "--until", type=float, default=float("inf"), help="start no program after so many seconds"
    )
    parser.add_argument(
        "--stock-every",
        type=int,
        default=1,
        help="lower stock for every so many programs, and where vkfuse refuses",
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _work(options)
    else:
        _spread(options)


# --- the parent: batches in processes of their own


def _spread(options: argparse.Namespace) -> None:
    done = {json.loads(line)["id"] for line in options.output.open()} if options.output.exists() else set()
    left = [line for number, line in _wanted(options).items() if number not in done]
    end = time.monotonic() + options.until
    with options.output.open("a") as stream, ThreadPoolExecutor(options.jobs) as pool:
        writer = _Writer(stream)
        size = max(1, min(_BATCH, len(left) // (2 * options.jobs)))
        batches = [left[at : at + size] for at in range(0, len(left), size)]
        for _ in pool.map(lambda batch: _batch(batch, options, writer, end), batches):
            pass


def _wanted(options: argparse.Namespace) -> dict[int, str]:
    """What a worker is told of each program, by number: the number, or its spec."""
    if options.specs:
        return {json.loads(line)["id"]: line.strip() for line in options.specs.open()}
    return {number: str(number) for number in options.only or range(options.first, options.end)}


class _Writer:
    """Writes whole lines, from any thread."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def __call__(self, line: str) -> None:
        with self._lock:
            self._stream.write(line.rstrip() + "\n")
            self._stream.flush()


def _batch(programs: Sequence[str], options: argparse.Namespace, write: _Writer, end: float) -> None:
    """Run a batch; a program at which the process dies or hangs is a fault, and the rest goes on in another."""
    left = list(programs)
    while left and time.monotonic() < end:
        with _worker(options) as worker:
            lines = _lines(worker.stdout)
            while left and time.monotonic() < end:
                worker.stdin.write(f"{left[0]}\n")
                worker.stdin.flush()
                died = _until_done(lines, write, options.timeout + 60)
                program = json.loads(left.pop(0))
                if died:
                    number = program if isinstance(program, int) else program["id"]
                    write(json.dumps({"id": number, "flow": "vkfuse", "verdict": "fault", "why": died}))
                    worker.kill()
                    break


@contextlib.contextmanager
def _worker(options: argparse.Namespace) -> Iterator[Any]:
    command = [sys.executable, __file__, "--worker", "--runner", options.runner]
    command += ["--timeout", str(options.timeout), "--stock-every", str(options.stock_every)]
    command += ["--runtime", options.runtime] if options.runtime else []
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "LP_NUM_THREADS": os.environ.get("LP_NUM_THREADS", "1"),
    }
    worker = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    try:
        yield worker
    finally:
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.close()
        worker.wait()


def _lines(stream: Any) -> "SimpleQueue[str]":
    """The lines of a stream as they come, and an empty one at its end."""
    lines: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=lambda: [*map(lines.put, stream), lines.put("")], daemon=True).start()
    return lines


def _until_done(lines: "SimpleQueue[str]", write: _Writer, timeout: float) -> str:
    """Write what a worker says of one program; why it died, if it did."""
    while True:
        try:
            line = lines.get(timeout=timeout)
        except Empty:
            return "hangs"
        if not line:
            return "the process died"
        if line.strip() == "done":
            return ""
        write(line)


# --- the worker: one program after the other


def _work(options: argparse.Namespace) -> None:
    say, sys.stdout = sys.stdout, sys.stderr  # upstream prints
    import torch  # noqa: PLC0415 - seconds, which the parent does not spend

    from vkfuse.pages import seldom_collected  # noqa: PLC0415

    torch.set_num_threads(1)
    _trace_patterns_once()
    with seldom_collected():
        for line in sys.stdin:
            for found in _program(json.loads(line), options):
                say.write(json.dumps(found) + "\n")
            say.write("done\n")
            say.flush()


def _trace_patterns_once() -> None:
    """Let ExecuTorch keep the graphs of what it fuses, which it traces anew for each program, in three seconds."""
    from executorch.backends.vulkan.patterns import fusable_patterns  # noqa: PLC0415 - imports torch

    for entry in fusable_patterns.values():
        if entry.get_graphs_fn is not None:
            entry.get_graphs_fn = functools.cache(entry.get_graphs_fn)


def _program(given: int | dict[str, Any], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The verdicts on a program, its number or its spec: vkfuse's flow, and stock's."""
    from generate import spec as spec_of  # noqa: PLC0415 - imports torch

    start = time.perf_counter()
    try:
        spec = spec_of(given) if isinstance(given, int) else given
    except LookupError as error:
        yield {"id": given, "flow": "", "verdict": "no program", "why": str(error)}
        return
    number = spec["id"]
    try:
        with _alarm(options.timeout):
            case = Case(spec, options.runner, options.runtime)
    except Exception as error:  # noqa: BLE001 - torch raises anything; such a program is not counted
        yield {"id": number, "flow": "", "verdict": "not exported", "why": _text(error), "spec": spec}
        return
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for flow in spec.get("flows", FLOWS):
            if flow == "stock" and number % options.stock_every and found["vkfuse"].get("certified"):
                continue
            found[flow] = _guarded(
                lambda flow=flow: case.through(flow, Path(folder) / f"{flow}.pte"), options.timeout
            )
    seconds = round(time.perf_counter() - start, 2)
    for flow, of in found.items():
        yield (
            {"id": number, "flow": flow, "verdict": verdict(of, found.get("stock", {}))}
            | of
            | ({"spec": spec, "seconds": seconds} if flow == "vkfuse" else {})
        )


def verdict(found: Mapping[str, Any], stock: Mapping[str, Any]) -> str:
    """The verdict on a flow: from whether vkfuse certified its file, and what the runtime did with it and with stock's."""
    if "fault" in found:
        return "fault"
    on_runtime = found.get("runtime")
    if found.get("certified"):
        return (
            "right"
            if on_runtime in {None, "right"}
            else f"certified but {_UNUSABLE.get(on_runtime, 'wrong')}"
        )
    return "refused but right" if "right" in {on_runtime, stock.get("runtime")} else "refused"


_UNUSABLE: Final = {"load": "does not load", "run": "does not run"}


def _guarded(run: Callable[[], dict[str, Any]], timeout: int) -> dict[str, Any]:
    try:
        with _alarm(timeout):
            return run()
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        return {"fault": _text(error), "trace": traceback.format_exc()[-1500:]}


@contextlib.contextmanager
def _alarm(seconds: int) -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise TimeoutError(f"no end within {seconds} s")

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


class Case:
    """An exported program, and what it computes eagerly at its lengths."""

    def __init__(self, spec: Mapping[str, Any], runner: str, runtime: str | None) -> None:
        from compare import References  # noqa: PLC0415 - imports torch
        from program import export  # noqa: PLC0415

        from vkfuse.options import Options  # noqa: PLC0415

        self.spec, self.runner = spec, runner
        self.runtime = runtime or Options().runtime
        self.exported = export(spec)
        self.references = References(spec)

    def through(self, flow: str, path: Path) -> dict[str, Any]:
        """Lower, certify, run."""
        from vkfuse.errors import VkfuseError  # noqa: PLC0415

        try:
            (self._vkfuse if flow == "vkfuse" else self._stock)(path)
        except VkfuseError as error:
            return {"says": {"refused": _text(error)}, "certified": False}
        says = self._says(path)
        found = {
            "says": says,
            "certified": says["verify"] == "same" and not says["lint"],
            "bytes": path.stat().st_size,
        }
        return found | (self._ran(path) if self.runner else {})

    def _vkfuse(self, path: Path) -> None:
        from vkfuse import optimize  # noqa: PLC0415

        optimize(self.exported, path, self._options())

    def _stock(self, path: Path) -> None:
        from vkfuse.lower.lowering import lower_stock  # noqa: PLC0415
        from vkfuse.quiet import quiet  # noqa: PLC0415

        with quiet(), path.open("wb") as stream:
            lower_stock({"forward": self.exported}, self._options().vulkan).write(stream)

    def _options(self) -> Any:
        from vkfuse.options import BaselineChoice, Options, Storage, VulkanOptions  # noqa: PLC0415

        chosen = {name: self.spec[name] for name in ("small_textures", "fp16")}
        vulkan = VulkanOptions(storage=Storage(self.spec["storage"]), **chosen)
        return Options(runtime=self.runtime, baseline=BaselineChoice.NONE, vulkan=vulkan, verify=False)

    def _says(self, path: Path) -> dict[str, Any]:
        """What vkfuse finds in a written file: codes of its lint, and verify's verdict."""
        import torch  # noqa: PLC0415

        from vkfuse.lint import faults, lint  # noqa: PLC0415
        from vkfuse.program.load import from_exported  # noqa: PLC0415
        from vkfuse.pte import read_pte  # noqa: PLC0415
        from vkfuse.verify.compare import Tolerance  # noqa: PLC0415
        from vkfuse.verify.verify import VerifyOptions, verify_file  # noqa: PLC0415

        pte = read_pte(path)
        tolerance = Tolerance(arithmetic=torch.float16 if self.spec["fp16"] else None)
        chosen = VerifyOptions(runtime=self.runtime, seeds=1, tolerance=tolerance)
        program = from_exported(self.exported).exported
        said, found = verify_file(pte, program, chosen), faults(lint(pte, self.runtime))
        return {"lint": sorted({each.code for each in found}), "verify": said.status, "message": said.message}

    def _ran(self, path: Path) -> dict[str, Any]:
        from runner import run  # noqa: PLC0415

        ran = run(self.runner, path, self.references.calls)
        if ran.state != "ran":
            return {"runtime": ran.state, "log": ran.log[-700:], "calls": len(ran.outputs)}
        wrong = self.references.wrong(ran.outputs)
        return {"runtime": "wrong" if wrong else "right"} | ({"wrong": wrong} if wrong else {})


if __name__ == "__main__":
    main()
