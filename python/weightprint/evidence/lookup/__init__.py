"""Finding hidden units, heads, channels and token rows of one model in another."""
