"""Statements for machines, to be signed by whoever answers for them, and the digests of files that they name."""
