"""Equal bytes, and what they don't show."""

from __future__ import annotations

import numpy as np
from synthetic import Array, decoder, models
from weightprint.evidence.exact_sharing import ExactSharing, exact_sharing


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
    enough = {"x": (np.arange(4096) % 64).astype(np.float32)}
    assert exact_sharing(models(enough, enough)).statistic == 1


def test_position_tables_show_nothing_under_any_name() -> None:
    rng = np.random.default_rng(0)
    learned = rng.standard_normal((100, 64)).astype(np.float32)
    both = {"wpe.weight": learned, "table": sinusoids(100, 64), "rotary.inv_freq": learned[0], "learned": learned + 1}
    evidence = exact_sharing(models(both, both))
    assert [f.b for f in evidence.found] == ["learned"]
    assert evidence.told(ExactSharing).n_fixed == 3
