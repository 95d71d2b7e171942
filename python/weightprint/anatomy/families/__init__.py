"""Architectures' spellings, row by row; their list is `table.py`."""
