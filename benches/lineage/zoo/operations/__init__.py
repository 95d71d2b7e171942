"""Operations on weights, one file per kind; their list is `results/table.py`."""
