"""Showing results to people: one file per result, and one for the rules by which names are shown."""
