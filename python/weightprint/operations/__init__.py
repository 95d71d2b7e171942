"""OPERATIONS: what was done to one model to make the other; list: `table.py`. May import verdict and below."""
