"""Find quantized tables, decide what to do with each, prove it, and rewrite the graph."""
