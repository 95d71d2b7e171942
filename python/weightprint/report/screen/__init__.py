"""The first screen of compare: what fits 24 lines of 80 columns."""
