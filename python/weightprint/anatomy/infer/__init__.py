"""Roles of tensors that no family names, from shapes and values."""
