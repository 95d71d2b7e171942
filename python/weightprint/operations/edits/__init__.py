"""Edits that rewrite whole matrices by a rule: each file reads one rule off matrices of both sides."""
