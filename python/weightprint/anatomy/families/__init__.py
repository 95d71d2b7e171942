"""The table of families: one row per naming scheme."""
