"""FINGERPRINT: one model as the tests see it, and how it is read for them. May import scan and below."""
