"""Which tensor is layer 7's up-projection, however it is named, fused, transposed or quantised."""
