"""One file for each way of storing quantised weights; their list is `quant/survey.py`."""
