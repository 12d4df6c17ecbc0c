"""Lower one small model by every backend of the wheel: `python build_backends.py DIRECTORY` writes the files there.

Run in its own process by tests/pte/conftest.py, once for each version of this script and of the packages.
"""

import logging
import sys
import warnings
from pathlib import Path

import torch
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
from torch import nn

PARTITIONERS = {
    "portable": list,
    "xnnpack": lambda: [XnnpackPartitioner()],
    "vulkan": lambda: [VulkanPartitioner()],
}
X = torch.randn(2, 8)


class Small(nn.Module):
    """A linear, a norm and a softmax, with a constant beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 8)
        self.register_buffer("shift", torch.arange(8.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project up, normalize, project down."""
        return self.down(self.norm(self.up(x))).softmax(-1) + self.shift


class Other(Small):
    """The same weights, and what another method does with them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project up and down."""
        return self.down(self.up(x).relu())


def write(directory: Path, name: str) -> None:
    """Write a file of one method, one of two, and one whose constants are outside, by one backend."""
    torch.manual_seed(0)
    small, other = Small().eval(), Other().eval()
    other.load_state_dict(small.state_dict())
    one = torch.export.export(small, (X,))
    two = {"forward": one, "other": torch.export.export(other, (X,))}
    for kind, programs in (("one", {"forward": one}), ("two", two)):
        made = PARTITIONERS[name]()
        by_method = made and dict.fromkeys(programs, made)
        lowered = to_edge_transform_and_lower(programs, partitioner=by_method or None).to_executorch()
        lowered.save(str(directory / f"{name}-{kind}.pte"))
    external = to_edge_transform_and_lower(one, partitioner=PARTITIONERS[name]()).to_executorch(
        ExecutorchBackendConfig(external_constants=True)
    )
    external.save(str(directory / f"{name}-external.pte"))
    for data in external._tensor_data.values():
        (directory / f"{name}-external.ptd").write_bytes(bytes(data))


def main() -> None:
    """Write every file into the directory given."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    for name in PARTITIONERS:
        write(Path(sys.argv[1]), name)


if __name__ == "__main__":
    main()
