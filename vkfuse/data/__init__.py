"""Data that ships with vkfuse: operators and shaders of each Vulkan runtime version."""
