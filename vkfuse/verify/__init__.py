"""Runs the bytes of a .pte without a Vulkan runtime, and says whether they are the program they came from."""
