"""``python -m tests.mutation --runs N``: so many runs of the command on changed files, with their counts."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import click

from tests.mutation.kills import kill_faults
from tests.mutation.mutations import KINDS, mutated
from tests.mutation.runs import faults


@click.command()
@click.option("--runs", default=1000, show_default=True, help="Runs of the command, over all kinds.")
@click.option("--seconds", default=float("inf"), help="Stop after so long.")
@click.option("--seed", default=1, show_default=True)
@click.option("--kills", default=0, show_default=True, help="Runs that are killed at a random moment, beside these.")
def main(runs: int, seconds: float, seed: int, kills: int) -> None:
    """Change files at random and run every verb on them; exit 1 if anything is wrong."""
    started, files, done, wrong = time.monotonic(), Counter[str](), Counter[str](), list[str]()
    at = Path(tempfile.mkdtemp(prefix="mutation-"))
    rng = random.Random(seed)
    sound = KINDS["odd_models"](rng, at)
    makers = {kind: mutated(kind, seed, runs, at) for kind in KINDS}
    while done.total() < runs and time.monotonic() - started < seconds:
        for kind, paths in makers.items():
            path = next(paths)
            n, found = faults(path, sound, rng, 2)
            files[kind] += 1
            done[kind] += n
            wrong += found
            for line in found:
                click.echo(line)
            if not found:
                shutil.rmtree(at / f"{kind}-{seed}-{files[kind] - 1}")
    for k in range(kills):
        folder = at / f"kill-{k}"
        folder.mkdir()
        wrong += (found := kill_faults(rng, folder))
        done["kills"] += 1
        for line in found:
            click.echo(line)
    for kind, n in files.items():
        click.echo(f"{kind:20} {n:8,} files {done[kind]:8,} runs")
    click.echo(f"{'kills':20} {'':14} {done['kills']:8,} runs")
    click.echo(f"{files.total():,} mutated files, {done.total():,} runs, {len(wrong)} faults")
    raise SystemExit(bool(wrong))


main()
