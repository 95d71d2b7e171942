"""One file per command of `python -m benches.lineage`."""
