"""Helpers that know no model: text, numbers, arrays, threads. Imports nothing of this package."""
