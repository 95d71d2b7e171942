"""pytest-benchmark over the Python binding: `pytest benches/test_scan.py`; same workload names as the criterion bench.

Small checkpoints (64 MB), so that it runs in seconds and shows a change of ours before and after. How fast the scan is
against the machine and against others is `python -m benches.scan`'s to say. Not collected by a plain `pytest`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pytest_benchmark")
ml_dtypes = pytest.importorskip("ml_dtypes")

from weightprint import _core  # noqa: E402

from benches.scan import synthetic  # noqa: E402

NBYTES = 64_000_000
WORKLOADS: dict[str, dict[str, Any]] = {
    "moments": {},
    "rows": {"rows": True},
    "columns": {"columns": True},
    "exact": {"exact": True},
    "digest": {"digest": True},
    "all": {"exact": True, "rows": True, "digest": True},
}


@pytest.fixture(scope="module", params=synthetic.DTYPES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = synthetic.checkpoint(NBYTES, request.param, tmp_path_factory.mktemp("bench"))
    (file,) = synthetic.shard_files(folder)
    yield file
    shutil.rmtree(folder)


def test_plain_read(benchmark: Any, checkpoint: Path) -> None:
    """XOR of every 64-bit word of the mapped file in numpy, one thread: a floor to read the others against."""
    benchmark.group = checkpoint.parent.name

    def read() -> int:
        data = np.memmap(checkpoint, np.uint8, "r")
        return int(np.bitwise_xor.reduce(data[: data.size // 8 * 8].view(np.uint64)))

    benchmark(read)


@pytest.mark.parametrize("work", WORKLOADS)
def test_scan(benchmark: Any, checkpoint: Path, work: str) -> None:
    """From opening the file to the finished columns, two threads."""
    benchmark.group = checkpoint.parent.name

    def scan() -> dict[str, Any]:
        file = _core.SafetensorsFile(str(checkpoint))
        return _core.scan([file], [(0, i) for i in range(file.n_tensors)], threads=2, **WORKLOADS[work])

    columns = benchmark(scan)
    assert len(columns["mean"]) == 8 * _core.SafetensorsFile(str(checkpoint)).n_tensors
