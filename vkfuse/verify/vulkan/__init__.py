"""Executes the operator chain of a Vulkan delegate with the arithmetic of the runtime's shaders."""
