"""Shaders that a Vulkan delegate carries in `VkGraph.shaders`, which ExecuTorch's runtimes ignore."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from vkfuse.glsl.manifest import shipped_manifest
from vkfuse.pte.vulkan import Constant, VulkanGraph


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredShader:
    """SPIR-V in a delegate: vkfuse's own by `name`; name and `sha256` are empty where they are not known."""

    constant: Constant
    name: str
    sha256: str

    @property
    def label(self) -> str:
        """The name, else the first digits of the hash."""
        return self.name or self.sha256[:12] or "unknown"


def stored_shaders(graph: VulkanGraph) -> Iterator[StoredShader]:
    """Yield the shaders of a delegate; no more bytes are hashed than the blob has, however they overlap."""
    left = graph.bytes_at.end
    for constant in graph.shaders:
        data = constant.data
        if data is None or len(data) > left:
            yield StoredShader(constant=constant, name="", sha256="")
            continue
        left -= len(data)
        digest = hashlib.sha256(data).hexdigest()
        yield StoredShader(constant=constant, name=_names().get(digest, ""), sha256=digest)


@cache
def _names() -> dict[str, str]:
    """The shaders that ship in the package, by hash."""
    return {shader.sha256: shader.name for shader in shipped_manifest().shaders}
