"""Every family's miniature through the drawing and the canonical scan."""

from __future__ import annotations

from functools import cache
from math import prod

import miniature
import numpy as np
import pytest
import weightprint
from weightprint import _core
from weightprint.anatomy.anatomy import Anatomy
from weightprint.anatomy.folding import fold
from weightprint.anatomy.parameters import parts
from weightprint.report.drawing import drawing
from weightprint.report.pen import Pen


@cache
def miniatures():
    return {m.name: m for m in miniature.collect()}


NAMES = sorted(miniatures())


@pytest.mark.parametrize("name", NAMES)
def test_fits_80_columns_and_counts_everything_once(name, tmp_path):
    known = Anatomy(weightprint.open(miniatures()[name].write(tmp_path)))
    for line in drawing(known, Pen(80)):
        assert len(line.plain) <= 80, line.plain
        assert len(line.plain) == len(line.plain.rstrip())
    lines = [line for s in fold(known) for run in s.runs for line in run.lines]
    lines += [line for s in fold(known) for line in (*s.before, *s.after)]
    drawn = sum(line.n_parameters for line in lines)
    assert drawn == sum(part.n_parameters for part in parts(known) if part.part not in ("fixed", "unmapped"))
    total = sum(prod(known.weights[w].shape) for w in known.weights)
    assert sum(part.n_parameters for part in parts(known)) == total


@pytest.mark.parametrize("name", NAMES)
def test_canonical_scan(name, tmp_path):
    """The canonical scan measures the very values that the miniature was made from."""
    made = miniatures()[name]
    scan = weightprint.scan(made.write(tmp_path), of="canonical", digest=True)
    for place, values in made.canonical.items():
        measure = _core.Measure(values.shape, digest=True)
        measure.add(np.ascontiguousarray(values, "<f4").tobytes())
        wanted = measure.finish()
        row = scan[str(place)]
        assert row["shape"] == values.shape
        assert row["digest"] == wanted["digest"][0], place
        assert np.float64(row["std"]).tobytes() == wanted["std"]
