"""Makes the merges of tests/compare importable."""

from __future__ import annotations

import sys
from pathlib import Path

for beside in ("compare", "evidence"):
    sys.path.insert(0, str(Path(__file__).parents[1] / beside))
