"""What `check` asks beyond values, one file per subject; their list is `table.py`."""
