"""Makes the models of tests/evidence, the makers of tests/cases and the merges beside this file importable."""

from __future__ import annotations

import sys
from pathlib import Path

for beside in ("evidence", "cases", "compare"):
    sys.path.insert(0, str(Path(__file__).parents[1] / beside))
sys.path.append(str(Path(__file__).parents[1] / "checkpoint" / "gguf"))
