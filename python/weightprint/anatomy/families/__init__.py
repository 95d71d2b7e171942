"""Architectures' spellings, row by row; their list is `results/table.py`."""
