"""Makes the modules beside the tests importable, the miniatures of the families, and the synthetic models."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), *(str(Path(__file__).parent.parent / x) for x in ("anatomy", "evidence"))]
