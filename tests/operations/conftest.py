"""Makes the modules beside the tests, the synthetic models of tests/evidence and benches/lineage importable."""

from __future__ import annotations

import sys
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]
for folder in (Path(__file__).parent, _TESTS / "evidence", _TESTS.parent):
    sys.path.insert(0, str(folder))
