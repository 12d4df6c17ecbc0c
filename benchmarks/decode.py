"""A decode step with a cache on the GPU beside one of the same layers without: how much longer a token takes, on a device.

    python benchmarks/decode.py build FOLDER [--layers 8] [--cache 1024]
    python benchmarks/decode.py run FOLDER --runner RUNNER

`build` writes cached.pte and plain.pte of a Llama with random weights (512 columns, 8 heads over 4, 8da4w, an int4 table)
and needs torch, transformers and vkfuse. `run` needs none of them; RUNNER is a program that is called as ``RUNNER FILE
forward INPUTS OUTPUTS`` and prints ``call N T ms`` for each call of one loaded method, INPUTS as `packed` packs them.
It prints the medians, and their ratio.
"""

import argparse
import os
import re
import statistics
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TOKENS = 160
WARM = 10  # calls that do not count: the first one records the commands
ROUNDS = 3
WORDS = 4096
NAMES = ("plain", "cached")
LONG = 4  # ExecuTorch's code of int64
Call = Sequence[tuple[tuple[int, ...], tuple[int, ...]]]  # sizes and values of each input


def build(folder: Path, layers: int, cache: int) -> None:
    """Write both files."""
    import torch  # noqa: PLC0415 - not needed to run
    from transformers.integrations.executorch import TorchExportableModuleForDecoderOnlyLM  # noqa: PLC0415 - likewise

    import vkfuse  # noqa: PLC0415 - likewise

    class Plain(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, token: Any, position: Any) -> Any:
            return self.model(input_ids=token, position_ids=position[None], use_cache=False).logits

    token, position = torch.zeros((1, 1), dtype=torch.long), torch.tensor([0])
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        plain = torch.export.export(Plain(_model(layers, cache)), (token, position))
        exportable = TorchExportableModuleForDecoderOnlyLM(
            _with_cache(_model(layers, cache), cache), batch_size=1, max_cache_len=cache
        )
        cached = exportable.export(input_ids=token, cache_position=position, strict=True)
    for name, program in zip(NAMES, (plain, cached), strict=True):
        report = vkfuse.optimize(program, folder / f"{name}.pte", baseline="none", verify=False).report
        print(f"{name}: {report.output.bytes} bytes, {report.delegation.crossings} crossings")


def _model(layers: int, cache: int) -> Any:
    import torch  # noqa: PLC0415 - not needed to run
    import transformers  # noqa: PLC0415 - likewise
    from torchao.quantization import (  # noqa: PLC0415 - likewise
        Int8DynamicActivationIntxWeightConfig,
        IntxWeightOnlyConfig,
        quantize_,
    )
    from torchao.quantization.granularity import PerGroup  # noqa: PLC0415 - likewise
    from torchao.utils import unwrap_tensor_subclass  # noqa: PLC0415 - likewise

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=WORDS,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=cache,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    model, group = transformers.LlamaForCausalLM(config).eval(), PerGroup(32)
    table = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=group)
    linear = Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=group)
    quantize_(model, table, lambda module, _: isinstance(module, torch.nn.Embedding))
    quantize_(model, linear, lambda module, _: isinstance(module, torch.nn.Linear))
    unwrap_tensor_subclass(model)
    return model


def _with_cache(model: Any, cache: int) -> Any:
    chosen = model.generation_config
    chosen.cache_implementation, chosen.use_cache, chosen.max_length = "static", True, cache
    chosen.cache_config = {"batch_size": 1, "max_cache_len": cache}
    return model


def packed(calls: Sequence[Call]) -> bytes:
    """Calls of int64 inputs, each (sizes, values), as a runner reads them."""
    parts = [struct.pack("<I", len(calls))]
    for call in calls:
        parts.append(struct.pack("<I", len(call)))
        for sizes, values in call:
            parts.append(struct.pack("<BiI", 1, LONG, len(sizes)))
            parts.append(struct.pack(f"<{len(sizes)}q{len(values)}q", *sizes, *values))
    return b"".join(parts)


def run(folder: Path, runner: str) -> None:
    """Time both files in turn, and print what a token takes."""
    times: dict[str, list[float]] = {name: [] for name in NAMES}
    with tempfile.TemporaryDirectory() as temporary:
        inputs, outputs = Path(temporary) / "in.bin", Path(temporary) / "out.bin"
        inputs.write_bytes(packed([(((1, 1), (at * 7 % WORDS,)), ((1,), (at,))) for at in range(TOKENS)]))
        for _ in range(ROUNDS):
            for name in NAMES:
                command = [runner, folder / f"{name}.pte", "forward", inputs, outputs]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found = re.findall(r"call \d+ ([\d.]+) ms", done.stdout + done.stderr)
                times[name] += map(float, found[WARM:])
    medians = {name: statistics.median(each) for name, each in times.items()}
    print(", ".join(f"{name} {median:.2f} ms" for name, median in medians.items()))
    print(f"with the cache {medians['cached'] / medians['plain']:.2f} times as long")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["build", "run"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--cache", type=int, default=1024)
    parser.add_argument("--runner", default=os.environ.get("RUNNER"))
    given = parser.parse_args()
    if given.what == "build":
        build(given.folder, given.layers, given.cache)
    else:
        run(given.folder, given.runner)


if __name__ == "__main__":
    main()
