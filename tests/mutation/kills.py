"""Runs that are killed at a random moment: an output is the old file or the whole new one, and no input has changed."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from weightprint import WeightprintError
from weightprint.fingerprint.fingerprint import Fingerprint

from tests.mutation.mutations import odd_models

OLD = b"as it was"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
_TEMPORARY = ".weightprint-*.tmp"
_STOPS_WITHIN = 20.0  # seconds after the signal; far more than an interpreter's end takes on a busy machine

#: Verb → its arguments for (model, other model, output).
_VERBS = {
    "inspect": lambda a, b, out: ["inspect", a, "-o", f"{out}.json"],
    "stats": lambda a, b, out: ["stats", a, "-o", f"{out}.csv"],
    "check": lambda a, b, out: ["check", a, "--manifest", "write", f"{out}.json"],
    "diff": lambda a, b, out: ["diff", a, b, "-o", f"{out}.json"],
    "compare": lambda a, b, out: ["compare", a, b, "-o", f"{out}.json"],
    "recipe": lambda a, b, out: ["recipe", a, b, "-o", f"{out}.json"],
    "fingerprint": lambda a, b, out: ["fingerprint", a, "-o", f"{out}.fp"],
}


def kill_faults(rng: random.Random, at: Path) -> list[str]:
    """What went wrong when one run of a verb, chosen as its moment and signal are, was killed."""
    models = []
    for name in ("a", "b"):
        (at / name).mkdir()
        models.append(odd_models(rng, at / name))
    before = [model.read_bytes() for model in models]
    verb, end = rng.choice(list(_VERBS)), rng.choice(SIGNALS)
    folder = at / "out"
    folder.mkdir()
    command = _VERBS[verb](*map(str, models), str(folder / "x"))
    output = Path(command[-1])
    output.write_bytes(OLD)
    process = subprocess.Popen(
        [sys.executable, "-m", "weightprint", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    # Half of the runs end while they write, the others anywhere from the start of the interpreter on.
    until = time.monotonic() + (30.0 if rng.random() < 0.5 else rng.uniform(0.0, 1.5))
    while time.monotonic() < until and process.poll() is None and not list(folder.glob(_TEMPORARY)):
        time.sleep(0.001)
    process.send_signal(end)
    what = f"{verb} ended by {end.name}"
    try:
        _, said = process.communicate(timeout=_STOPS_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return [f"{what}: still there after {_STOPS_WITHIN:.0f} s"]
    wrong = []
    # The run may have ended by itself before; Ctrl-C is 130 once our code runs, and Python's own end before that.
    if process.returncode not in (0, 1, 2, 130, -end):
        wrong.append(f"{what}: exit {process.returncode}")
    if b"internal error" in said:
        wrong.append(f"{what}: {said.decode(errors='replace')[:300]}")
    if not _whole(output):
        wrong.append(f"{what}: {output.name} is neither old nor whole")
    if end is signal.SIGINT and process.returncode == 130 and list(folder.glob(_TEMPORARY)):
        wrong.append(f"{what}: left a temporary file")
    if [model.read_bytes() for model in models] != before:
        wrong.append(f"{what}: an input has changed")
    if not wrong:
        shutil.rmtree(at)
    return wrong


def _whole(output: Path) -> bool:
    content = output.read_bytes()
    if content == OLD:
        return True
    if output.suffix == ".csv":
        return content.startswith(b"name,") and content.endswith(b"\n")
    try:
        json.loads(content) if output.suffix == ".json" else Fingerprint.load(output)
    except (ValueError, WeightprintError):
        return False
    return True
