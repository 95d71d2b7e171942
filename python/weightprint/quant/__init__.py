"""QUANT: from stored tensors to plain weights, however they are quantised. May import checkpoint and below."""
