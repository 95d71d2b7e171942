"""What unrelated models show, from the benchmark: curves over depth, and the most striking p-value among them."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["unrelated"]


@cache
def unrelated() -> dict[str, Any]:
    """``curves``: part → edges of the band and how many independent models it rests on; ``p_values``: the smallest of
    how many pairs. Made by ``python -m benches.lineage bands``."""
    text = files("weightprint.report.page").joinpath("unrelated.json").read_text(encoding="utf-8")
    return dict(json.loads(text))
