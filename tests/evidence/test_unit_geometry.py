"""Units keep their number under whatever is done to the stream; strangers never find it; copies inside B count once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from synthetic import Arrays, child, decoder, models
from weightprint.evidence.evidence import Evidence
from weightprint.evidence.nulls.exchange import double_centre
from weightprint.evidence.unit_geometry import _hat, unit_geometry

READS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "embed_tokens")
FEEDS = {"self_attn": "input_layernorm", "mlp": "post_attention_layernorm"}


def compare(a: Arrays, b: Arrays, **how: Any) -> Evidence:
    return unit_geometry(models(a, b, **how))


def folded(arrays: Arrays) -> Arrays:
    """Gains of the norms in front of attention and FFN moved into the matrices."""
    out = dict(arrays)
    for name, x in arrays.items():
        parts = name.split(".")
        if (
            name.startswith("model.layers.")
            and parts[3] in FEEDS
            and parts[4].removesuffix("_proj") not in ("o", "down")
        ):
            norm = f"model.layers.{parts[2]}.{FEEDS[parts[3]]}.weight"
            out[name] = x * arrays[norm]
            out[norm] = np.ones_like(arrays[norm])
    return out


def turned(arrays: Arrays, matrix: npt.NDArray[Any]) -> Arrays:
    """Another basis of the stream: an orthogonal matrix (d_new x d) applied to it, gains folded first."""
    out: Arrays = {}
    for name, x in folded(arrays).items():
        if x.ndim == 1:
            out[name] = np.ones(matrix.shape[0], np.float32)
        else:
            reads = any(part in name for part in READS)
            out[name] = np.asarray(x @ matrix.T if reads else matrix @ x, np.float32)
    return out


def rotation(d: int, seed: int = 0) -> npt.NDArray[Any]:
    return np.asarray(np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0])


def renumbered(arrays: Arrays, seed: int) -> Arrays:
    """The units of every FFN in another order."""
    rng = np.random.default_rng(seed)
    out = dict(arrays)
    for name in arrays:
        if name.endswith("down_proj.weight"):
            order = rng.permutation(arrays[name].shape[1])
            out[name] = arrays[name][:, order]
            for role in ("up", "gate"):
                other = name.replace("down_proj", f"{role}_proj")
                out[other] = arrays[other][order]
    return out


def stacked(arrays: Arrays, order: list[int]) -> Arrays:
    """Blocks in this order, repeats allowed."""
    out = {name: x for name, x in arrays.items() if ".layers." not in name}
    for new, old in enumerate(order):
        for name, x in arrays.items():
            if f".layers.{old}." in name:
                out[name.replace(f".layers.{old}.", f".layers.{new}.")] = x
    return out


PARENT = decoder(1)
CHILD = child(PARENT, 0.9)


@pytest.mark.parametrize(
    "what", ["rotated", "permuted", "flipped", "signs of units", "other gains", "narrower", "wider"]
)
def test_a_descendant_is_found_in_any_basis(what: str) -> None:
    rng = np.random.default_rng(2)
    d = 64
    eye = np.eye(d)
    made = {
        "rotated": lambda: turned(CHILD, rotation(d)),
        "permuted": lambda: turned(CHILD, eye[rng.permutation(d)]),
        "flipped": lambda: turned(CHILD, np.diag(rng.choice([-1.0, 1.0], d))),
        "signs of units": lambda: flipped_units(turned(CHILD, rotation(d)), rng),
        "other gains": lambda: {n: x * np.float32(rng.uniform(0.5, 2)) if x.ndim == 1 else x for n, x in CHILD.items()},
        "narrower": lambda: turned(CHILD, eye[np.sort(rng.permutation(d)[:48])]),
        "wider": lambda: turned(CHILD, np.concatenate([eye, 0.3 * rng.standard_normal((16, d))])),
    }[what]()
    found = compare(PARENT, made)
    assert found.log10_p is not None
    assert found.log10_p < -60
    assert found.effect is not None
    assert found.effect > 0.4
    assert [m.a for m in found.matches] == [m.b for m in found.matches]


def flipped_units(arrays: Arrays, rng: np.random.Generator) -> Arrays:
    out = dict(arrays)
    for name in arrays:
        if name.endswith("up_proj.weight"):
            signs = rng.choice([-1.0, 1.0], arrays[name].shape[0]).astype(np.float32)
            out[name] = arrays[name] * signs[:, None]
    return out


def test_rotation_changes_nothing() -> None:
    plain, turned_copy = compare(PARENT, CHILD), compare(PARENT, turned(CHILD, rotation(64, 3)))
    assert turned_copy.statistic == pytest.approx(plain.statistic, abs=4)


def test_the_map_of_a_shuffled_and_repeated_stack() -> None:
    order = [3, 0, 1, 1, 2]
    found = compare(PARENT, turned(stacked(CHILD, order), rotation(64)))
    assert [m.a[1] for m in found.matches] == order
    assert found.details["families_of_ffns_in_b"] == 4
    for match in found.matches:
        assert match.units is not None
        assert match.agreed == len(match.units) > 40


@pytest.mark.slow
def test_renumbered_units_of_a_copy_are_under_the_null() -> None:
    """The worst case under the null: everything learned is shared, only the order is not."""
    draws = [compare(PARENT, renumbered(PARENT, seed)).log10_p or 0.0 for seed in range(60)]
    for alpha in (0.5, 0.2, 0.05):
        assert np.mean([p <= np.log10(alpha) for p in draws]) <= alpha + 2.5 * np.sqrt(alpha * (1 - alpha) / 60)


@pytest.mark.slow
def test_copies_inside_a_stranger_do_not_multiply_its_luck() -> None:
    """Four copies of every block, near the null's edge each: independent treatment would multiply their p-values."""
    base = decoder(1, layers=1, d=16, h=32)
    draws = []
    for seed in range(150):
        b = renumbered(base, seed)
        draws.append(compare(base, stacked(child(b, 0.98), [0] * 6)).log10_p or 0.0)
    for alpha in (0.2, 0.05, 0.01):
        assert np.mean([p <= np.log10(alpha) for p in draws]) <= alpha + 2.5 * np.sqrt(alpha * (1 - alpha) / 150)


def test_experts_find_their_dense_parent() -> None:
    rng = np.random.default_rng(5)
    made: Arrays = {}
    for name, x in CHILD.items():
        if ".mlp." not in name:
            made[name] = x
            continue
        for expert in range(3):
            redrawn = rng.random(x.shape[1 if "down" in name else 0]) < 0.2
            noise = (rng.standard_normal(x.shape) * x.std()).astype(np.float32)
            mask = redrawn[None, :] if "down" in name else redrawn[:, None]
            made[name.replace(".mlp.", f".mlp.experts.{expert}.")] = np.where(mask, noise, x)
    for layer in range(4):
        made[f"model.layers.{layer}.mlp.gate.weight"] = rng.standard_normal((3, 64)).astype(np.float32)
    found = compare(PARENT, turned_reads(made))
    assert len(found.matches) == 12
    assert all(m.a == ("decoder", m.b[1], None) and m.agreed > 20 for m in found.matches)


def turned_reads(arrays: Arrays) -> Arrays:
    """Rotates the two matrices that the test reads, and the norm's gain out of the way."""
    r = rotation(64, 8)
    out = dict(arrays)
    for name, x in arrays.items():
        layer = name.split(".")[2] if ".layers." in name else ""
        if "gate_proj" in name or "up_proj" in name:
            out[name] = np.asarray(
                (x * arrays[f"model.layers.{layer}.post_attention_layernorm.weight"]) @ r, np.float32
            )
        elif "post_attention_layernorm" in name:
            out[name] = np.ones_like(x)
    return out


def test_quick_reads_little() -> None:
    a, b = decoder(1, h=640, layers=3, vocabulary=4000), decoder(2, h=640, layers=3, vocabulary=4000)
    pair = models(a, b, effort="quick")
    read = 0

    def counted(name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        nonlocal read
        assert "down" not in name
        read += stop - start
        return np.asarray(a[name].reshape(-1)[start:stop], np.float32)

    from dataclasses import replace

    found = unit_geometry(replace(pair, a=replace(pair.a, reader=counted)))
    assert found.applied
    assert 0 < read <= 3 * 2 * 64 * 64 + 3 * 64


def test_what_it_cannot_answer() -> None:
    found = compare(decoder(1, h=160), decoder(2, h=128))
    assert not found.applied
    assert found.log10_p is None
    dead = {name: np.zeros_like(x) if "up" in name or "gate" in name else x for name, x in PARENT.items()}
    assert compare(PARENT, dead).log10_p in (None, 0.0)


def test_the_same_seed_gives_the_same_numbers() -> None:
    one, two = compare(PARENT, CHILD, seed=3), compare(PARENT, CHILD, seed=3)
    assert (one.statistic, one.log10_p, one.details) == (two.statistic, two.log10_p, two.details)


def test_profiles_are_rows_of_the_hat_matrix() -> None:
    rng = np.random.default_rng(9)
    x = rng.standard_normal((96, 40)).astype(np.float32)
    order = rng.permutation(96)
    references, tested = np.sort(order[:48]), np.sort(order[48:])
    unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float64)
    gram = unit @ unit.T
    hat = gram @ np.linalg.inv(gram + 0.3 * np.trace(gram) / 40 * np.eye(96))
    expected = double_centre(hat[np.ix_(tested, references)].astype(np.float32))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert _hat(x, references, tested, centre=False) == pytest.approx(expected, abs=1e-5)
