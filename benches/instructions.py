"""Instructions per element of a scan on the AVX2 path, counted by callgrind: `python benches/instructions.py`.

Time on a shared machine scatters by a tenth; the number of instructions is repeatable to 0.01 % and so can gate a
change. Each workload scans two synthetic checkpoints of different size with one thread; the difference in instructions
over the difference in elements is free of start-up. Valgrind knows no AVX-512, hence AVX2, forced.

`--check` fails when a workload needs more than LIMITS allow. Raise a limit only with the reason in the commit.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benches.scan import native, synthetic

LIMITS = {"moments": 1.69, "rows": 2.12, "exact": 4.4}
"""Instructions per bf16 element: what was measured (1.61, 2.02, 4.15; rustc 1.95) and 5 % for another compiler. The
std-only prototype needed 2.63, 2.73 and 7.87."""
SIZES = (48_000_000, 96_000_000)


def count(program: Path, work: str, file: Path) -> tuple[int, int]:
    """(instructions, elements) of one scan of `file`."""
    command = [str(program), "--threads", "1", "--once", f"{work}/avx2/pread", str(file)]
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run([*valgrind, *command], capture_output=True, text=True)
    collected = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or collected is None:
        raise SystemExit(done.stderr)
    elements = re.search(r'"elements":(\d+)', done.stdout)
    assert elements is not None
    return int(collected[1]), int(elements[1])


def main() -> None:
    """Print one line per workload; with --check, exit 1 above a limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 if a workload is above its limit")
    parser.add_argument("--dtypes", default="bf16", help="of bf16,f16,f32,fp8; limits hold for bf16 (default: bf16)")
    args = parser.parse_args()
    program = native.build()
    above = []
    with tempfile.TemporaryDirectory() as folder:
        for dtype in args.dtypes.split(","):
            small, large = (synthetic.checkpoint(n, dtype, Path(folder)) / "model.safetensors" for n in SIZES)
            for work, limit in LIMITS.items():
                (i0, n0), (i1, n1) = count(program, work, small), count(program, work, large)
                per_element = (i1 - i0) / (n1 - n0)
                note = f" (limit {limit})" if dtype == "bf16" else ""
                print(f"{dtype:5} {work:8} {per_element:6.3f} instructions per element{note}")
                if dtype == "bf16" and per_element > limit:
                    above.append(work)
    if args.check and above:
        raise SystemExit(f"above the limit: {', '.join(above)}")


if __name__ == "__main__":
    main()
