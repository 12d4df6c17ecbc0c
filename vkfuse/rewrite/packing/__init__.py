"""Pure tensor -> tensor functions: nibbles, groups, padding. No graph, no program."""
