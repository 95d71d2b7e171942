"""Rounding intervals, quantisation levels and grids: may these values be those, rounded?"""
