"""The linear sketch, as a fingerprint and the scan hold it: linear, unbiased, the same bits whoever reads."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import weightprint
from weightprint import _core
from weightprint.anatomy.place import Place
from weightprint.fingerprint.plan import BUCKETS, Plan, folded, sketch_key

rng = np.random.default_rng(11)


def sketch(x, key, isa=None, cuts=()):
    state = _core.Measure(x.shape, sketch=key, isa=isa)
    for piece in np.split(np.ascontiguousarray(x, "<f4").reshape(-1), list(cuts)):
        state.add(piece.tobytes())
    return np.frombuffer(state.finish()["sketch"][0])


@pytest.mark.parametrize("shape", [(1, 1), (3, 100), (257, 129), (1100, 1000)])
def test_sketches_add_up(shape):
    a, b = rng.standard_normal((2, *shape)).astype(np.float32)
    total = np.linalg.norm(a) + np.linalg.norm(b)
    np.testing.assert_allclose(sketch(a, 3) + sketch(b, 3), sketch(a + b, 3), atol=1e-6 * total)
    np.testing.assert_allclose(-2.5 * sketch(a, 3), sketch(-2.5 * a, 3), atol=1e-6 * total)


def test_bits_do_not_depend_on_instructions_or_cuts():
    x = rng.standard_normal((1300, 1001)).astype(np.float32)
    want = sketch(x, 8)
    for isa in _core.isa_available():
        for cuts in ((), (1, 2, 70_001), (1 << 20,)):
            assert np.array_equal(sketch(x, 8, isa, cuts), want)


def test_inner_products_stay_within_their_derived_deviation():
    a = rng.standard_normal((300, 301)).astype(np.float32)
    for b in (a, rng.standard_normal(a.shape).astype(np.float32), np.tile(a[:1], (300, 1))):
        aa, bb, ab = (float(np.sum(x.astype(float) * y)) for x, y in ((a, a), (b, b), (a, b)))
        deviation = np.sqrt((aa * bb + ab**2) / BUCKETS)
        errors = [(sketch(a, k) @ sketch(b, k) - ab) / deviation for k in range(80)]
        assert abs(np.mean(errors)) < 4 / np.sqrt(80)
        assert 0.6 < np.std(errors) < 1.4


def test_fewer_buckets_are_sums_of_more():
    a, b = rng.standard_normal((2, 500, 400)).astype(np.float32)
    few, others = folded(sketch(a, 1), 64), folded(sketch(b, 1), 64)
    assert few.shape == (64,)
    assert abs(few @ others) < 5 * np.linalg.norm(a) * np.linalg.norm(b) / 8
    assert folded(sketch(a + b, 1), 64) == pytest.approx(few + others, abs=1e-2)


def test_signs_are_fixed_by_seed_role_block_and_expert():
    places = [
        Place("decoder", 3, "up"),
        Place("decoder", 4, "up"),
        Place("decoder", 3, "gate"),
        Place("decoder", 3, "up", 1),
    ]
    keys = {sketch_key(seed, "w", place) for place in places for seed in (0, 1)}
    assert len(keys) == 8
    assert sketch_key(0, "one", places[0]) == sketch_key(0, "another", places[0])
    x = rng.standard_normal((64, 256)).astype(np.float32)
    assert abs(sketch(x, 1) @ sketch(x, 2)) < 5 * np.linalg.norm(x) ** 2 / 16


def test_the_scan_of_a_file_makes_the_sketch_of_its_values(save):
    x = (rng.standard_normal((1500, 1400)) * 3).astype(ml_dtypes.bfloat16)
    wide = x.astype(np.float32)
    for array in (x, wide, x.astype(np.float64)):
        file = _core.SafetensorsFile(str(save("x.safetensors", {"w": array, "v": array[:2]})))
        for threads, io in ((1, "pread"), (3, "mmap")):
            found = _core.scan([file], [(0, 0), (0, 1)], sketch=[6, None], threads=threads, io=io)["sketch"]
            assert found[1] is None
            assert np.array_equal(np.frombuffer(found[0]), sketch(wide, 6))
    assert "sketch" not in _core.scan([file], [(0, 0)])


def test_what_is_no_number_counts_as_nothing():
    x = rng.standard_normal((40, 50)).astype(np.float32)
    bad, cleaned = x.copy(), x.copy()
    bad.flat[[0, 77, 900, 1999]] = np.nan, np.inf, -np.inf, 1e20
    cleaned.flat[[0, 77, 900, 1999]] = 0
    assert np.array_equal(sketch(bad, 2), sketch(cleaned, 2))


def test_a_fingerprint_tells_distances_between_models(save):
    a = rng.standard_normal((512, 600)).astype(np.float32)
    b = (a + 0.3 * rng.standard_normal(a.shape)).astype(np.float32)
    one, other = (
        weightprint.fingerprint(str(save(f"{name}.safetensors", {"layers.0.mlp.up_proj.weight": x}))).sketch(
            "layers.0.mlp.up_proj.weight"
        )
        for name, x in (("a", a), ("b", b))
    )
    assert np.linalg.norm(other - one) / np.linalg.norm(one) == pytest.approx(0.3, rel=0.25)
    assert Plan().buckets(100) == BUCKETS
    assert Plan().buckets(45_000) == 64
