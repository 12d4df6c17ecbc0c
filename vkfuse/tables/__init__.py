"""The engine that graphs and files share: grids, packs, proofs, refusals and decisions on numpy arrays, without torch."""
