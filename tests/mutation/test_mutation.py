"""Files changed at random, a few of each kind; ``python -m tests.mutation --runs N`` tries many."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.mutation.kills import kill_faults
from tests.mutation.mutations import KINDS, mutated
from tests.mutation.runs import faults


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_file_gives_an_answer_or_a_typed_error(kind: str, tmp_path: Path) -> None:
    rng = random.Random(kind)
    sound = KINDS["odd_models"](rng, tmp_path)
    wrong = [w for path in mutated(kind, 0, 12, tmp_path) for w in faults(path, sound, rng, 1)[1]]
    assert not wrong


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    for at in ("one", "two"):
        (tmp_path / at).mkdir()
    one, two = (next(mutated("safetensors_bytes", 3, 1, tmp_path / at)) for at in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow_but_first
@pytest.mark.parametrize("k", range(6))
def test_a_killed_run_leaves_the_old_file_or_the_whole_new_one(k: int, tmp_path: Path) -> None:
    assert not kill_faults(random.Random(k), tmp_path)
