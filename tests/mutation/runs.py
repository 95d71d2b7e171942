"""Runs the command on changed files and says what must not be: a crash, a bug's message, a hang, a warning of numpy's,
or a file that the reference implementation refuses and we take."""

from __future__ import annotations

import faulthandler
import random
import sys
import warnings
from pathlib import Path

import weightprint
from click.testing import CliRunner
from safetensors import safe_open
from weightprint.cli import cli

HANG_SECONDS = 300.0
VERBS = ("inspect", "stats", "check", "diff", "compare")


def faults(path: Path, sound: Path, rng: random.Random, verbs: int) -> tuple[int, list[str]]:
    """(runs, what went wrong) of `verbs` of the verbs on one file, against a `sound` one where a verb takes two."""
    wrong, chosen = [], rng.sample(VERBS, verbs)
    for verb in chosen:
        models = [str(path)] if verb not in ("diff", "compare") else rng.sample([str(path), str(sound)], 2)
        # A hang ends the process, with the stack of every thread.
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True, file=sys.__stderr__)
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                done = CliRunner().invoke(cli, [verb, *models])
        finally:
            faulthandler.cancel_dump_traceback_later()
        said = done.stderr
        if done.exit_code not in (0, 1, 2) or not isinstance(done.exception, (SystemExit, type(None))):
            wrong.append(f"{verb} {path}: exit {done.exit_code}, {done.exception!r}")
        elif "internal error" in said or "Traceback" in said:
            wrong.append(f"{verb} {path}: {said.strip()[:300]}")
        elif done.exit_code == 2 and not said.strip():
            wrong.append(f"{verb} {path}: exit 2 and not a word")
        wrong += [f"{verb} {path}: {w.category.__name__} {w.message}" for w in warned if "weightprint" in w.filename]
    if path.suffix == ".safetensors" and path.is_file() and _refused(path):
        try:
            weightprint.open(path).close()
        except (weightprint.WeightprintError, OSError):
            pass
        else:
            wrong.append(f"{path}: the reference refuses it")
    return len(chosen), wrong


def _refused(path: Path) -> bool:
    try:
        with safe_open(path, "np"):
            return False
    except Exception:  # the reference's refusals have many types; each is one
        return True
