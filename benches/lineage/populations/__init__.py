"""Pairs of known truth: made for it (strangers that share a property, parts alone or hidden), and real strangers."""
