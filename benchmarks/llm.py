"""Whole language models through `vkfuse optimize`: CPU seconds, peak memory, bytes, delegates, crossings.

    python benchmarks/llm.py [MODEL...] [--mode prefill|decode|dynamic] [--keep FOLDER]

The shapes are those of the published models, the weights random, at a scale where greedy tokens differ: 4-bit lookups and
8da4w linears in groups of 32, heads tied. `prefill` is 64 tokens without a cache, `decode` one token with a static cache of
512, `dynamic` 1 to 511 tokens with that cache. Each model is exported in a process of its own and optimized in another,
whose CPU time and memory are measured.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

CACHE: Final = 512  # positions
PREFILL: Final = 64  # tokens
MIB: Final = 1 << 20

# Names and numbers of the models' own config.json.

SHAPES: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "SmolLM2-135M": (
        "Llama",
        {
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "initializer_range": 0.05,
        },
    ),
    "Gemma-3-270M": (
        "Gemma3",
        {
            "vocab_size": 262144,
            "hidden_size": 640,
            "intermediate_size": 2048,
            "num_hidden_layers": 18,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "sliding_window": 512,
            "initializer_range": 0.01,
        },
    ),
    "Qwen3-0.6B": (
        "Qwen3",
        {
            "vocab_size": 151936,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "initializer_range": 0.05,
        },
    ),
    "Llama-3.2-1B": (
        "Llama",
        {
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "initializer_range": 0.05,
        },
    ),
}


def model(name: str) -> Any:
    """A model of the shape with random weights, quantized."""
    import torch  # noqa: PLC0415 - only where models are built
    import transformers  # noqa: PLC0415
    from torch import nn  # noqa: PLC0415
    from torchao.quantization import (  # noqa: PLC0415
        Int8DynamicActivationIntxWeightConfig,
        IntxWeightOnlyConfig,
        quantize_,
    )
    from torchao.quantization.granularity import PerGroup  # noqa: PLC0415
    from torchao.utils import unwrap_tensor_subclass  # noqa: PLC0415

    kind, shape = SHAPES[name]
    config_kind = getattr(transformers, "Gemma3TextConfig" if kind == "Gemma3" else f"{kind}Config")
    config = config_kind(
        **shape, max_position_embeddings=CACHE, tie_word_embeddings=True, attn_implementation="sdpa"
    )
    torch.manual_seed(0)
    made = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    of = made.generation_config
    of.cache_implementation, of.use_cache, of.max_length = "static", True, CACHE
    of.cache_config = {"batch_size": 1, "max_cache_len": CACHE}
    lookups = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))
    linears = Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=PerGroup(32))
    quantize_(made, lookups, lambda part, _name: isinstance(part, nn.Embedding))
    quantize_(made, linears, lambda part, _name: isinstance(part, nn.Linear))
    unwrap_tensor_subclass(made)
    return made


def prefill(made: Any) -> Any:
    """64 tokens, no cache."""
    import torch  # noqa: PLC0415 - as above

    made.config.use_cache = False
    with torch.no_grad():
        return torch.export.export(made, (), {"input_ids": torch.zeros((1, PREFILL), dtype=torch.long)})


def _cached(made: Any, tokens: int, **options: Any) -> Any:
    import torch  # noqa: PLC0415 - as above
    from transformers.integrations.executorch import TorchExportableModuleForDecoderOnlyLM  # noqa: PLC0415

    module = TorchExportableModuleForDecoderOnlyLM(made, batch_size=1, max_cache_len=CACHE)
    given = {"input_ids": torch.zeros((1, tokens), dtype=torch.long), "cache_position": torch.arange(tokens)}
    return module.export(**given, strict=True, **options)


def decode(made: Any) -> Any:
    """One token, a cache."""
    return _cached(made, 1)


def dynamic(made: Any) -> Any:
    """1 to 511 tokens, a cache."""
    from torch.export import Dim  # noqa: PLC0415 - as above

    length = Dim("length", min=1, max=CACHE - 1)
    return _cached(made, 3, dynamic_shapes={"input_ids": {1: length}, "cache_position": {0: length}})


MODES: Final[Mapping[str, Callable[[Any], Any]]] = {"prefill": prefill, "decode": decode, "dynamic": dynamic}


def _export(name: str, mode: str, path: Path) -> None:
    import torch  # noqa: PLC0415 - as above

    torch.export.save(MODES[mode](model(name)), path)


def optimized(program: Path, output: Path) -> dict[str, Any]:
    """The report of a run, with the CPU seconds that it took."""
    report = output.with_suffix(".json")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "vkfuse", "optimize", program, "-o", output, "--report", report]
    subprocess.run([*command, "--baseline", "none", "-q"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    made: dict[str, Any] = json.loads(report.read_text())
    made["cpu_seconds"] = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return made


def _row(name: str, mode: str, program: Path, made: Mapping[str, Any]) -> str:
    peak, read, written = made["cost"]["peak_rss_bytes"], program.stat().st_size, made["output"]["bytes"]
    cpu = sum(each["count"] for each in made["delegation"]["cpu"].values())
    cells = (
        f"{made['cpu_seconds']:.0f} s",
        f"{peak / MIB:.0f} MiB ({peak / read:.1f}x)",
        f"{read / MIB:.1f} MiB",
        f"{written / MIB:.1f} MiB",
        str(made["delegation"]["subgraphs"]),
        str(cpu),
        str(made["delegation"]["crossings"]),
    )
    return f"| {name} | {mode} | " + " | ".join(cells) + " |"


def main() -> None:
    """Print a row for each model and mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="*", default=[*SHAPES], metavar="MODEL", help=", ".join(SHAPES))
    parser.add_argument("--mode", choices=[*MODES], action="append")
    parser.add_argument("--keep", type=Path, help="folder for programs and files")
    parser.add_argument("--export", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.export:
        _export(given.models[0], given.mode[0], given.export)
        return
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    print("| model | mode | CPU time | peak memory | .pt2 | .pte | delegates | on the CPU | crossings |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        for name in given.models:
            for mode in given.mode or MODES:
                program = folder / f"{name}-{mode}.pt2"
                command = [sys.executable, __file__, name, "--mode", mode, "--export", program]
                subprocess.run(command, check=True)
                made = optimized(program, program.with_suffix(".pte"))
                print(_row(name, mode, program, made), flush=True)


if __name__ == "__main__":
    main()
