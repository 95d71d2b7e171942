"""GGUF files: their header, their tensors, and the config that their metadata stand for."""
