"""Two checkpoints tensor by tensor. May import scan and below."""
