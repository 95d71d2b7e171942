"""Residual-stream alignment: permutations, signs and rotations that bring B onto A."""
