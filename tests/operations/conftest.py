"""Makes the synthetic models of tests/evidence and the descendants of benches/lineage importable."""

from __future__ import annotations

import sys
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]
for folder in (_TESTS / "evidence", _TESTS.parent):
    sys.path.insert(0, str(folder))
