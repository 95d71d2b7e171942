"""Adapters in every dialect: their factors, what they change, and a base with one merged into it."""
