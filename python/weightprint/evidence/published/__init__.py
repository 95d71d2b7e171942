"""Published measures of similarity: shown beside the tests, never deciding; their list is `results/table.py`."""
