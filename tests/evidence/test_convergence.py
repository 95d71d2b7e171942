"""Strangers that do the same thing against descendants, both as alike in the strong directions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from synthetic import Arrays, decoder, models
from weightprint.evidence.convergence import Convergence, convergence
from weightprint.evidence.evidence import Evidence
from weightprint.evidence.pair import Basis

D, H, LAYERS = 48, 96, 3


def learned(data: int, own: int, inherited: int = -1, noise: float = 0.3) -> Arrays:
    """A decoder whose FFN units carry what `data` says in the first directions of the stream, and elsewhere what came
    with `inherited` (a seed; -1: nothing), plus noise of its own."""
    rng, seen, given = (np.random.default_rng([s + 1, 7]) for s in (own, data, inherited))
    strength = np.geomspace(1, 0.02, D)
    out = dict(decoder(own, d=D, h=H, layers=LAYERS))
    excited = np.arange(D) < D // 2
    for name, x in decoder(0, d=D, h=H, layers=LAYERS).items():
        if "embed" in name:
            out[name] = (rng.standard_normal(x.shape) * strength).astype(np.float32)
        elif "norm" in name:
            out[name] = np.ones_like(x)
        elif ".mlp." in name:
            strong, weak = seen.standard_normal((H, D)), given.standard_normal((H, D))
            if inherited < 0:
                weak = rng.standard_normal((H, D))
            rows = np.where(excited, strong, weak) + noise * rng.standard_normal((H, D))
            out[name] = (rows.T * strength[:, None] if "down" in name else rows).astype(np.float32)
    return out


def renumbered(arrays: Arrays, seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    out = dict(arrays)
    for name, x in arrays.items():
        if "down_proj" in name:
            order, signs = rng.permutation(H), rng.choice([-1, 1], H).astype(np.float32)
            up, gate = (name.replace("down_proj", f"{role}_proj") for role in ("up", "gate"))
            out[name], out[up] = x[:, order] * signs, arrays[up][order] * signs[:, None]
            out[gate] = arrays[gate][order]
    return out


def ask(a: Arrays, b: Arrays, basis: Basis | None = None) -> Evidence:
    return convergence(replace(models(a, b), basis=basis or Basis()))


def turned(arrays: Arrays, matrix: npt.NDArray[Any]) -> Arrays:
    """Gains are one here."""
    return {
        name: x
        if x.ndim == 1
        else np.asarray(matrix.T @ x if "down" in name or "o_proj" in name else x @ matrix, np.float32)
        for name, x in arrays.items()
    }


def test_strangers_of_the_same_data_are_told_from_descendants() -> None:
    a = learned(1, 1, inherited=5)
    stranger, heir = (ask(a, renumbered(learned(1, 2, inherited=i), 3)) for i in (-1, 5))
    for found in (stranger, heir):
        assert found.told(Convergence).strong_cosine > 0.7  # both do the same thing
        assert found.n > 0.9 * H * LAYERS
    assert heir.log10_p is not None
    assert heir.log10_p < -60
    assert heir.effect is not None
    assert heir.effect > 0.7
    assert stranger.log10_p is not None
    assert stranger.log10_p > -2.5
    assert abs(stranger.effect or 0.0) < 0.05


@pytest.mark.slow
def test_p_values_of_convergent_strangers_hold() -> None:
    p = [
        ask(learned(s, 100 + s, noise=0.6), renumbered(learned(s, 200 + s, noise=0.6), s)).log10_p or 0.0
        for s in range(40)
    ]
    for alpha in (0.5, 0.2, 0.05):
        assert np.mean([x <= np.log10(alpha) for x in p]) <= alpha + 2.5 * np.sqrt(alpha * (1 - alpha) / 40)


def test_through_a_rotation_that_was_found() -> None:
    matrix = np.asarray(np.linalg.qr(np.random.default_rng(0).standard_normal((D, D)))[0], np.float32)
    a, b = learned(1, 1, inherited=5), turned(renumbered(learned(1, 2, inherited=5), 3), matrix)
    assert (ask(a, b).log10_p or 0.0) > -3
    found = ask(a, b, Basis("rotation", matrix=matrix.T, semantic=True, candidates=10, fitted=frozenset({"decoder.1"})))
    assert found.log10_p is not None
    assert found.log10_p < -60
    assert set(found.told(Convergence).matched) == {"decoder.0", "decoder.2"}


@pytest.mark.parametrize("why", ["fitted everywhere", "no down", "nothing matches"])
def test_when_it_does_not_apply(why: str) -> None:
    a, b = learned(1, 1), learned(1, 2)
    basis = Basis()
    if why == "fitted everywhere":
        basis = Basis(fitted=frozenset(f"decoder.{i}" for i in range(LAYERS)))
    elif why == "no down":
        b = {name: x for name, x in b.items() if "down" not in name}
    else:
        b = {name: np.zeros_like(x) if ".mlp." in name else x for name, x in b.items()}
    found = ask(a, b, basis)
    assert not found.applied
    assert found.log10_p is None
    assert found.why_not
