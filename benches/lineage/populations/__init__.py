"""Pairs whose truth is known by their making: strangers that share a property, parts alone, parts hidden."""
