"""Files whose program nobody has: their own instructions and graphs, surveyed, edited and written again. Without torch."""
