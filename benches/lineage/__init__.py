"""The lineage benchmark: small decoders, really trained, whose family tree is known.

Everything here needs the `lineage` extra (JAX). Nothing here ships in the wheel; the package only carries four models
made by `python -m benches.lineage demo-models`.
"""
