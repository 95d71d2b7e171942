"""Null distributions and exact bounds that several tests share."""
