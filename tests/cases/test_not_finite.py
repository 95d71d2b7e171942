"""NaN, infinities and values at the ends of their type: named on the first screen of `compare`, first in `diff`, one
verdict in either order, and nothing on stderr."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import weightprint
from click.testing import CliRunner
from makers import Arrays, folder, llama
from weightprint.cli import cli

from tests.conftest import encode

Q, EMBEDDING = "model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight"


def save(at: Path, tensors: Arrays) -> Path:
    return folder(at, encode, tensors)


def with_values(w: Arrays, name: str, *values: float) -> Arrays:
    x = w[name].copy()
    x.reshape(-1)[7 : 7 + len(values)] = values
    return w | {name: x}


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        (Q, (np.nan,), "1 NaN"),
        (Q, (np.nan, np.inf, -np.inf), "1 NaN and 2 Inf"),
        (EMBEDDING, (np.inf,) * 128, "128 Inf"),
        ("model.norm.weight", (np.nan,), "1 NaN"),
    ],
)
def test_what_is_no_number_stands_on_the_first_screen(
    tmp_path: Path, name: str, values: tuple[float, ...], words: str
) -> None:
    w = llama(31)
    a, b = save(tmp_path / "a", w), save(tmp_path / "b", with_values(w, name, *values))
    for pair, side, other in (((a, b), "B", "A"), ((b, a), "A", "B")):
        assert weightprint.compare(*pair).result.against[0] == f"{side} holds {words} ({name}); {other} none."
        told = CliRunner().invoke(cli, ["compare", *map(str, pair)])
        assert f"{side} holds {words}" in " ".join("\n".join(told.output.splitlines()[:24]).split())
        assert not told.stderr
        shown = CliRunner().invoke(cli, ["diff", *map(str, pair)])
        assert not shown.stderr
        assert "NaN or Inf" in next(line for line in shown.output.splitlines() if name in line)


def test_both_hold_it(tmp_path: Path) -> None:
    w = with_values(llama(32), Q, np.nan)
    found = weightprint.compare(save(tmp_path / "a", w), save(tmp_path / "b", w))
    assert found.verdict == "identical"
    assert found.result.against[0] == f"A and B hold 1 NaN ({Q})."
    assert type(found).from_dict(found.to_dict()).weighed().against[0] == found.result.against[0]


def test_values_near_the_largest_are_values(tmp_path: Path) -> None:
    w = llama(33)
    a, b = save(tmp_path / "a", w), save(tmp_path / "b", {n: x * np.float32(1e38) for n, x in w.items()})
    told = [weightprint.compare(*pair) for pair in ((a, b), (b, a))]
    assert [t.verdict for t in told] == ["shared_origin"] * 2
    assert all({o.name for way in t.history.operations_if.values() for o in way} == {"scaled"} for t in told)
