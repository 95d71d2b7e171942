"""Every family of the table: its miniature maps completely and equals its Llama-form twin bit for bit."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from miniature import TWIN, Array, Miniature, collect, read
from weightprint.anatomy.families.table import FAMILIES
from weightprint.anatomy.match import Matched, match
from weightprint.anatomy.place import Place
from weightprint.anatomy.roles import FIXED

MINIATURES = collect()


def load(folder: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    return safetensors.numpy.load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())


def canonical(matched: Matched, tensors: dict[str, Array]) -> dict[Place, Array]:
    """Every place's array, without those that only repeat another; no place may be filled twice."""
    found: dict[Place, Array] = {}
    for a in matched.assignments:
        if a.place.role in FIXED:
            continue
        array = read(tensors, a.view)
        if a.tied:
            assert a.place.role == "head"
            assert array is tensors[a.view.weight]
            continue
        assert a.place not in found, a
        assert a.source == "table"
        found[a.place] = array
    return found


def same(found: dict[Place, Array], expected: dict[Place, Array]) -> None:
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    assert (sorted(map(str, missing)), sorted(map(str, extra))) == ([], [])
    for place, array in expected.items():
        assert found[place].shape == array.shape, place
        assert found[place].tobytes() == array.tobytes(), place


def test_every_row_has_a_miniature() -> None:
    held = {mini.family for mini in MINIATURES} | {name for mini in MINIATURES for name in mini.families.values()}
    assert {family.name for family in FAMILIES} - held == set()


@pytest.mark.parametrize("mini", MINIATURES, ids=lambda m: m.name)
def test_miniature(mini: Miniature, tmp_path: Path) -> None:
    tensors, config = load(mini.write(tmp_path / "mini"))
    matched = match({name: array.shape for name, array in tensors.items()}, config)
    assert not matched.unmatched, (matched.unmatched, matched.notes)
    chosen = {stack: family.name for stack, family in matched.families.items()}
    assert chosen == (dict(mini.families) or dict.fromkeys(chosen, mini.family))
    same(canonical(matched, tensors), mini.canonical)

    # Nothing lost, nothing read twice: the views of a weight hold as many numbers as it does.
    sizes: Counter[str] = Counter()
    for a in matched.assignments:
        if not a.tied:
            sizes[a.view.weight] += int(np.prod(a.view.shape))
    assert sizes == {name: array.size for name, array in tensors.items()}
    assert {a.view.weight for a in matched.assignments if a.place.role in FIXED} == mini.fixed


@pytest.mark.parametrize("mini", MINIATURES, ids=lambda m: m.name)
def test_twin(mini: Miniature, tmp_path: Path) -> None:
    tensors, config = load(mini.write_twin(tmp_path / "twin"))
    matched = match({name: array.shape for name, array in tensors.items()}, config, families=(*FAMILIES, TWIN))
    assert not matched.unmatched, (matched.unmatched, matched.notes)
    same(canonical(matched, tensors), mini.canonical)
