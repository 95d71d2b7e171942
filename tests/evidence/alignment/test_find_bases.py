"""Copies in another basis are brought back; strangers are not, whatever finder looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from synthetic import Arrays, child, decoder, models
from weightprint.evidence.alignment.channels import by_channels
from weightprint.evidence.alignment.held_out import score
from weightprint.evidence.alignment.search import FINDERS, find_bases
from weightprint.evidence.alignment.tokens import by_tokens, same_angles
from weightprint.evidence.alignment.unit_order import by_unit_order
from weightprint.evidence.alignment.unit_signatures import by_unit_signatures, moments, signatures
from weightprint.evidence.pair import Basis, ModelPair

D, H = 48, 96
PARENT = decoder(1, d=D, h=H, layers=4)
CHILD = child(PARENT, 0.95)
NORMS = {"self_attn": "input_layernorm", "mlp": "post_attention_layernorm"}
WRITES = ("o_proj", "down_proj")


def in_basis(arrays: Arrays, matrix: npt.NDArray[Any]) -> Arrays:
    """Every vector x of the stream becomes x @ matrix.T; gains are folded first."""
    out: Arrays = {}
    for name, x in arrays.items():
        parts = name.split(".")
        if x.ndim == 1:
            out[name] = np.ones(len(matrix), np.float32)
        elif any(part in name for part in WRITES):
            out[name] = np.asarray(matrix @ x, np.float32)
        else:
            gain = arrays[f"model.layers.{parts[2]}.{NORMS[parts[3]]}.weight"] if len(parts) > 4 else np.float32(1)
            out[name] = np.asarray((x * gain) @ matrix.T, np.float32)
    return out


def renumbered(arrays: Arrays, seed: int = 0) -> Arrays:
    """Units in another order, the signs of up and down together flipped for half of them."""
    rng = np.random.default_rng(seed)
    out = dict(arrays)
    for name, x in arrays.items():
        if "down_proj" in name:
            order, signs = rng.permutation(x.shape[1]), rng.choice([-1, 1], x.shape[1]).astype(np.float32)
            out[name] = x[:, order] * signs
            up, gate = (name.replace("down_proj", f"{role}_proj") for role in ("up", "gate"))
            out[up], out[gate] = arrays[up][order] * signs[:, None], arrays[gate][order]
    return out


def new_words(arrays: Arrays) -> Arrays:
    rng = np.random.default_rng(11)
    return {n: x[rng.permutation(len(x))] if "embed" in n else x for n, x in arrays.items()}


def rotation(seed: int = 0, d: int = D) -> npt.NDArray[Any]:
    return np.asarray(np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0])


def flips(seed: int = 0, d: int = D) -> npt.NDArray[Any]:
    rng = np.random.default_rng(seed)
    return np.asarray(np.eye(d)[rng.permutation(d)] * rng.choice([-1.0, 1.0], d))


def brings_back(basis: Basis, matrix: npt.NDArray[Any]) -> float:
    """Mean cosine between where the basis sends B's axes and where they came from."""
    sent = basis.to_a(np.eye(len(matrix), dtype=np.float32))
    return float(np.mean(np.sum(sent * matrix, axis=1)))


CASES: dict[str, tuple[Callable[[ModelPair], list[Basis]], Callable[[Arrays, npt.NDArray[Any]], Arrays], str]] = {
    "tokens, permuted": (by_tokens, lambda x, m: renumbered(in_basis(x, m)), "signed_permutation"),
    "tokens, rotated": (by_tokens, lambda x, m: renumbered(in_basis(x, m)), "rotation"),
    "unit order, permuted": (by_unit_order, lambda x, m: new_words(in_basis(x, m)), "signed_permutation"),
    "unit order, rotated": (by_unit_order, lambda x, m: new_words(in_basis(x, m)), "rotation"),
    "signatures, permuted": (
        by_unit_signatures,
        lambda x, m: renumbered(new_words(in_basis(x, m))),
        "signed_permutation",
    ),
    "signatures, rotated": (by_unit_signatures, lambda x, m: renumbered(new_words(in_basis(x, m))), "rotation"),
    "channels, permuted": (by_channels, lambda x, m: renumbered(new_words(in_basis(x, m))), "signed_permutation"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_finder_brings_its_copies_back(case: str) -> None:
    finder, make, kind = CASES[case]
    matrix = flips() if kind == "signed_permutation" else rotation()
    pair = models(PARENT, make(CHILD, matrix))
    (found,) = [basis for basis in finder(pair) if basis.kind == kind]
    assert brings_back(found, matrix) > 0.9
    assert score(pair, found).share > 0.6


@pytest.mark.slow_but_first
@pytest.mark.parametrize("finder", FINDERS, ids=lambda f: f.__name__)
def test_no_finder_aligns_strangers(finder: Callable[[ModelPair], list[Basis]]) -> None:
    found = [
        score(pair, basis).log10_p
        for seed in range(2, 14)
        for pair in [models(PARENT, decoder(seed, d=D, h=H, layers=4))]
        for basis in finder(pair)
    ]
    assert min(found, default=0.0) > -3.5
    assert np.mean(found or [0.0]) > -1


def test_the_best_basis_stands_first() -> None:
    plain = find_bases(models(PARENT, CHILD))
    assert [basis.kind for basis in plain] == ["identity"]
    matrix = rotation(3)
    found = find_bases(models(PARENT, renumbered(new_words(in_basis(CHILD, matrix)))))
    assert found[0].kind == "rotation"
    assert not found[0].semantic
    assert brings_back(found[0], matrix) > 0.9
    assert found[0].candidates >= 3
    permuted = find_bases(models(PARENT, in_basis(CHILD, flips(3))))
    assert permuted[0].kind == "signed_permutation"


def test_strangers_keep_the_identity() -> None:
    found = find_bases(models(PARENT, decoder(5, d=D, h=H, layers=4)))
    assert found[0].kind == "identity"
    assert found[0].candidates > 1


def test_what_was_fitted_is_not_scored() -> None:
    pair = models(PARENT, in_basis(CHILD, rotation()))
    (found,) = [basis for basis in by_unit_order(pair) if basis.kind == "rotation"]
    assert found.fitted == {"decoder.0", "decoder.2"}
    assert score(pair, found).tested == 2 * H


def test_a_narrower_copy_keeps_its_channels() -> None:
    """Hidden pruning, then a permutation: the channels that are left find their own."""
    kept = np.eye(D)[np.random.default_rng(4).permutation(D)[:36]]
    pair = models(PARENT, in_basis(CHILD, kept))
    (found,) = [b for b in by_tokens(pair) if b.kind == "signed_permutation"]
    assert found.channels is not None
    assert np.mean(found.channels[kept.argmax(axis=1)] == np.arange(36)) > 0.9
    assert found.to_a(np.ones((2, 36), np.float32)).shape == (2, D)


def test_signatures_do_not_see_the_basis() -> None:
    one = models(PARENT, in_basis(PARENT, rotation(6)))
    made = []
    for side in (one.a, one.b):
        folded = side is one.a
        layer = {n.split(".")[-2]: side.rows(t) for n, t in side.tensors.items() if ".layers.1.mlp." in n}
        gain = PARENT["model.layers.1.post_attention_layernorm.weight"] if folded else np.float32(1)
        m = moments(side, D)
        made.append(signatures([(layer["up_proj"] * gain, layer["gate_proj"] * gain, layer["down_proj"].T)], m))
        assert all(np.trace(x) == pytest.approx(1, abs=1e-4) for x in m.values())
    assert np.abs(made[0] - made[1]).mean() < 1e-2


def test_angles_between_rows_tell_copies_from_strangers_in_any_basis() -> None:
    rng, matrix = np.random.default_rng(8), rotation(8)
    own, drawn = (rng.standard_normal((401, 512, D), dtype=np.float32) for _ in range(2))
    assert sum(same_angles(x, y) for x, y in zip(own[:400], drawn[:400], strict=True)) <= 5  # three deviations
    noised = 0.3 * own[400] + 0.95 * drawn[400]  # a cosine of .3
    assert same_angles(own[400], np.asarray(noised @ matrix, np.float32))
    half = np.where(np.arange(512)[:, None] < 256, own[400], drawn[400])
    assert same_angles(own[400], half @ matrix[:, :40].astype(np.float32))  # narrower, half of the rows are new


def test_a_wide_stranger_is_not_asked_for_its_units(monkeypatch: pytest.MonkeyPatch) -> None:
    d = 288
    matrix, parent = flips(5, d).astype(np.float32), decoder(21, d=d, h=32, layers=4)
    copy = {
        name: np.abs(matrix) @ x if x.ndim == 1 else matrix @ x if any(w in name for w in WRITES) else x @ matrix.T
        for name, x in child(parent, 0.95).items()
    }
    (found,) = by_channels(models(parent, renumbered(new_words(copy))))
    assert brings_back(found, matrix) > 0.9

    def asked(*_: Any) -> None:
        raise AssertionError("units of a stranger were looked at")

    monkeypatch.setattr("weightprint.evidence.alignment.channels._by_size", asked)
    assert by_channels(models(parent, decoder(22, d=d, h=32, layers=4))) == []
