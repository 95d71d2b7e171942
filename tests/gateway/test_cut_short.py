"""A file that is cut short while it is scanned gives an error or a sound result, and never ends the process."""

import subprocess
import sys
from pathlib import Path

import pytest

_ROUNDS = '''
import faulthandler, os, random, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
import weightprint
from weightprint import _core

folder, rounds, how, faults = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
if faults == "before":
    faulthandler.enable()
SIZE = 12 << 20
HEADER = b'{"w":{"dtype":"BF16","shape":[6144,1024],"data_offsets":[0,%d]}}' % SIZE
CONTENT = len(HEADER).to_bytes(8, "little") + HEADER + np.random.default_rng(1).bytes(SIZE)
ASKED = {"exact": True, "digest": True, "threads": 2, "io": "mmap"}


def scanned(path):
    return _core.scan([_core.SafetensorsFile(path)], [(0, 0)], **ASKED)["digest"]


def cut_under_a_scan(path, seed):
    """Whether the scan noticed; a result it gave is that of the whole file."""
    chance = random.Random(seed)
    path.write_bytes(CONTENT)
    file = _core.SafetensorsFile(path)
    wait, to = chance.uniform(0, 1.2 * usual), chance.choice([0, 4096, chance.randrange(len(CONTENT))])
    cut = threading.Thread(target=lambda: (time.sleep(wait), os.truncate(path, to)))
    cut.start()
    try:
        found = _core.scan([file], [(0, 0)], **ASKED)["digest"]
    except weightprint.FileChangedError:
        return True
    finally:
        cut.join()
    assert found == expected
    return False


def all_rounds():
    with ThreadPoolExecutor(3 if how == "threads" else 1) as pool:
        paths = (folder / f"{i % 8}.safetensors" for i in range(rounds))
        noticed = sum(pool.map(cut_under_a_scan, paths, range(rounds)))
    assert noticed > 0, "no cut came while the file was read"


whole = folder / "whole.safetensors"
whole.write_bytes(CONTENT)
expected = scanned(whole)
start = time.perf_counter()
assert scanned(whole) == expected
usual = time.perf_counter() - start
if faults == "meanwhile":
    switch = threading.Thread(target=lambda: [(faulthandler.enable(), time.sleep(0.003)) for _ in range(3)])
    switch.start()
if how == "fork":
    # The child starts while the parent scans.
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(lambda: [scanned(whole) for _ in range(3)])
        if (child := os.fork()) == 0:
            all_rounds()
            os._exit(0)
        busy.result()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
else:
    all_rounds()
'''


@pytest.mark.parametrize("rounds", [40, pytest.param(1000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize(
    ("how", "faults"),
    [("alone", "off"), ("alone", "before"), ("threads", "before"), ("threads", "meanwhile"), ("fork", "before")],
)
def test_a_file_cut_at_a_random_moment(tmp_path: Path, how: str, faults: str, rounds: int) -> None:
    """``faults``: Python's own handler of faults is put before the scans, or while they run, or not at all."""
    if how == "fork" and sys.platform == "win32":
        pytest.skip("no fork on this platform")
    script = tmp_path / "rounds.py"
    script.write_text(_ROUNDS)
    command = [sys.executable, str(script), str(tmp_path), str(rounds), how, faults]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
