"""Makes the model fetcher beside the tests importable, and the benchmark, which is not part of the wheel."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "checkpoint" / "gguf"))
sys.path.append(str(Path(__file__).parents[2]))
