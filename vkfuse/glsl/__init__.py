"""The embedding shader: its variants, template, SPIR-V, and what builds, checks and times them. Imports no torch."""
