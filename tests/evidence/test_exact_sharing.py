"""Equal bytes, and what they don't show."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import Array, decoder, models
from weightprint.evidence.exact_sharing import ExactSharing, exact_sharing
from weightprint.evidence.same_values import same_values


def sinusoids(rows: int, width: int) -> Array:
    angle = np.arange(rows)[:, None] / 10000 ** (np.arange(width // 2) / (width // 2))
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


def test_a_renamed_copy_is_found_whole() -> None:
    a = decoder(0)
    b = {f"t{i}": x for i, x in enumerate(reversed(a.values()))}
    evidence = exact_sharing(models(a, b))
    assert evidence.told(ExactSharing).n_only_in_a == evidence.told(ExactSharing).n_only_in_b == 0
    assert len(evidence.found) + evidence.told(ExactSharing).n_trivial == len(b)
    assert len(evidence.told(ExactSharing).renamed) == len(b)


def test_strangers_share_nothing() -> None:
    evidence = exact_sharing(models(decoder(0), decoder(1)))
    assert evidence.statistic == 0
    assert evidence.log10_p is None


def test_equal_bytes_of_another_dtype_or_shape_do_not_count() -> None:
    x = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)
    assert exact_sharing(models({"x": x}, {"x": x.view(np.int64)})).told(ExactSharing).n_equal == 0
    assert exact_sharing(models({"x": x}, {"x": x.reshape(8, 32)})).told(ExactSharing).n_equal == 0


def test_trivial_tensors_are_equal_but_show_nothing() -> None:
    rng = np.random.default_rng(0)
    trivial = {
        "ones": np.ones(4096, np.float32),
        "few": rng.integers(0, 63, 4096).astype(np.float32),
        "short": rng.standard_normal(63).astype(np.float32),
    }
    evidence = exact_sharing(models(trivial, trivial))
    assert (evidence.statistic, evidence.told(ExactSharing).n_trivial) == (0, 3)
    enough = {"x": rng.permutation(np.arange(4096) % 64).astype(np.float32)}
    assert exact_sharing(models(enough, enough)).statistic == 1


TABLES = {
    "numbers": np.arange(512.0),
    "numbers of every row": np.tile(np.arange(128.0), (8, 1)),
    "numbers down a column": np.arange(256.0).reshape(256, 1),
    "frequencies": 10000 ** -(np.arange(0, 128, 2) / 128),
    "a window": np.hanning(400),
    "distances": np.abs(np.subtract.outer(np.arange(64.0), np.arange(64.0))),
    "logarithms": np.log(np.arange(1, 513.0)),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_what_a_formula_makes_shows_nothing(table: Array) -> None:
    """Nor does it in another type, where strangers keep the same table."""
    a, b = table.astype(np.float32), table.astype(np.float64)
    evidence = exact_sharing(models({"x": a}, {"y": a}))
    assert (evidence.statistic, evidence.told(ExactSharing).n_fixed) == (0, 1)
    for other in (b, *([table.astype(np.int64)] if np.all(table == np.rint(table)) else [])):
        assert {f.kind for f in same_values(models({"x": a}, {"y": other})).found} <= {"trivial"}


def test_weights_are_not_taken_for_a_formulas() -> None:
    """White, of few values, heavy-tailed, of low rank, with large channels or one common direction, sorted rows."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((96, 80))
    weights = {
        "white": x,
        "integers": rng.integers(0, 200, (64, 64)),
        "tails": rng.standard_t(2, (96, 80)),
        "low rank": x[:, :3] @ x[:3],
        "channels": x * np.where(np.arange(80) == 7, 50, 1),
        "direction": x + 5 * rng.standard_normal(80),
        "by norm": x[np.argsort(np.linalg.norm(x, axis=1))],
        "vector": rng.standard_normal(300),
        "gains": 1 + 0.1 * rng.standard_normal(300),
    }
    kept = {n: np.ascontiguousarray(w, np.float32) for n, w in weights.items()}
    assert {f.b for f in exact_sharing(models(kept, kept)).found} == kept.keys()


def test_position_tables_show_nothing_under_any_name() -> None:
    rng = np.random.default_rng(0)
    learned = rng.standard_normal((100, 64)).astype(np.float32)
    both = {"wpe.weight": learned, "table": sinusoids(100, 64), "rotary.inv_freq": learned[0], "learned": learned + 1}
    evidence = exact_sharing(models(both, both))
    assert [f.b for f in evidence.found] == ["learned"]
    assert evidence.told(ExactSharing).n_fixed == 3
