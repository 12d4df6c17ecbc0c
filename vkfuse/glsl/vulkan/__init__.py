"""A small Vulkan compute runner: device, memory, pipeline, timing. Knows nothing of the shader that it runs."""
