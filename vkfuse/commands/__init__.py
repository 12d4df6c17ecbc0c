"""The commands that need a module of their own; the command line itself is `vkfuse.cli`."""
