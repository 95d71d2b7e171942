"""Models of known lineage: plans, training, and everything that is done to weights."""
