"""OPEN: from a path to a checkpoint, headers only. May import results and below."""
