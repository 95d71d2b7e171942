"""OPERATIONS: what was done to one model to make the other; list: `results/table.py`. May import verdict and below."""
