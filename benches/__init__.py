"""Benchmarks of weightprint; none of this is installed."""
