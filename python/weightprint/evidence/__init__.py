"""TESTS: each asks one question of two models; their list is `tests.py`. May import fingerprint and below."""
