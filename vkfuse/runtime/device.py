"""What a device has: the limits that choose shaders."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Limits of a GPU. The defaults are a common one's: no Mali, no cooperative matrices, integer dot products."""

    texture_2d: int = 16384  # maxImageDimension2D
    work_groups: int = 65535  # maxComputeWorkGroupCount
    buffer: int = 1 << 27  # maxStorageBufferRange, as the runtime counts it: elements

    def texels(self, width: int, height: int) -> str:
        """Storage of this many texels: a two-dimensional texture where it fits."""
        return "texture2d" if max(width, height) <= self.texture_2d else "buffer"


COMMON: Final = Device()
TEXTURE: Final = (16384, 16384, 2048)  # texels along the sides of what lowering puts in a texture
SMALL_TEXTURE: Final = (2048, 2048, 2048)  # the same, where it is to keep to what every GPU has
LEAST: Final = Device(texture_2d=4096)  # what the Vulkan specification guarantees
