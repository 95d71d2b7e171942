"""The scan against the physical limit and against its peers: `python -m benches.scan`."""
