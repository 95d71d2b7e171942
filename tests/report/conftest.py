"""Makes the modules beside the tests importable, and the miniatures of the families."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "anatomy")]
