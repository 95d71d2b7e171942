"""ANATOMY: which tensor is which part of which block, and its canonical form. May import quant and below."""
