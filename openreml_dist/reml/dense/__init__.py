"""The dense engine: V(θ) in tiles over the grid, inverted or factored."""
