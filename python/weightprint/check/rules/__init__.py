"""What `check` asks beyond values, one file per subject; their list is `results/table.py`."""
