"""SCAN: statistics and digests of every tensor in one pass. May import anatomy and below."""
