"""What a comparison says it cost, what it reads, and that the cheaper ways of reading give the same numbers."""

from __future__ import annotations

import importlib
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import weightprint
from safetensors.numpy import save_file
from synthetic import child, decoder, models
from weightprint.anatomy.anatomy import Anatomy
from weightprint.evidence import budget as budgets
from weightprint.evidence.alignment import solve as _solve
from weightprint.evidence.embeddings import embeddings
from weightprint.evidence.lookup import token_tables as _token_tables
from weightprint.fingerprint import sampling
from weightprint.fingerprint.live import outline
from weightprint.fingerprint.model import no_sample
from weightprint.report.compare import text
from weightprint.util.linear_algebra import accounted, eigh, product, solve, svd, svdvals

ROOT = str(Path(__file__).resolve().parents[2])
sys.path.insert(0, ROOT)
pytest.importorskip("jax")
big = import_module("benches.lineage.scale.big_shapes")
budget = import_module("benches.lineage.scale.budget")
sys.path.remove(ROOT)

_MIDDLE = big.Shape("llama", 128, 4, 4, 2, 384, 2000)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root, a child of it with its units permuted, and a stranger."""
    folder = tmp_path_factory.mktemp("big")
    for name, kind, seed in (("root", "root", 0), ("child", "permuted", 0), ("stranger", "root", 1)):
        big.write(folder / name, big.Plan(_MIDDLE, 4, kind=kind, seed=seed))
    return folder


@pytest.mark.slow_but_first
@pytest.mark.parametrize(("other", "verdict"), [("child", "shared_origin"), ("stranger", "no_evidence")])
def test_linear_algebra_is_part_of_the_time_and_reading_is_bounded(written: Path, other: str, verdict: str) -> None:
    found = weightprint.compare(written / "root", written / other)
    assert found.verdict == verdict
    assert 0 < found.gemm_seconds <= found.seconds
    assert found.to_dict()["gemm_seconds"] == found.gemm_seconds
    assert "products of matrices" in text(found, verbose=True)
    # One pass, and samples: no tensor is read more than a few times over, though here every sample is of whole tensors.
    whole = sum(f.stat().st_size for name in ("root", other) for f in (written / name).glob("*.safetensors"))
    assert whole * 0.99 <= found.bytes_read <= whole * (12 if other == "child" else 20)


def test_an_account_counts_what_runs_inside_it_and_nothing_else() -> None:
    x = np.random.default_rng(0).standard_normal((200, 200))
    with accounted() as outer:
        with accounted() as inner:
            np.testing.assert_array_equal(product(x, x), x @ x)
        first = inner.seconds
        time.sleep(0.05)
        assert 0 < first == outer.seconds
        np.testing.assert_allclose(x @ solve(x, x), x, atol=1e-8)
        u, s, vt = svd(x)
        np.testing.assert_allclose((u * s) @ vt, x, atol=1e-10)
        np.testing.assert_allclose(svdvals(x), s)
        np.testing.assert_allclose(np.sort(eigh(x.T @ x)[0])[::-1], s**2, atol=1e-8)
    assert inner.seconds == first < outer.seconds
    product(x, x)
    with accounted() as later:
        pass
    assert later.seconds == 0


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32])
def test_columns_of_stored_tensors_are_those_of_the_decoded_ones(tmp_path: Path, dtype: Any) -> None:
    x = np.random.default_rng(0).standard_normal((70, 200)).astype(dtype)
    x.reshape(-1)[:6] = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-6]
    save_file({"x": x}, tmp_path / "model.safetensors")
    with weightprint.open(tmp_path / "model.safetensors") as checkpoint:
        here, reads = outline(Anatomy(checkpoint, values=False), "a")
        rows, tensor = np.array([0, 1, 2, 30, 68, 69]), here.tensors["x"]
        sliced = replace(here, sample=no_sample)
        for columns in (np.arange(40, 104), np.array([0, 7, 90, 199]), np.arange(200), np.array([9, 3, 3, 100])):
            for some in (rows, rows[::-1], np.array([5, 5, 6, 0])):
                want = x[np.ix_(some, columns)].astype(np.float32)
                np.testing.assert_array_equal(sampling.sampled_rows(here, tensor, some, columns), want)
                np.testing.assert_array_equal(sampling.sampled_rows(sliced, tensor, some, columns), want)
        before = reads.nbytes
        sampling.sampled_rows(here, tensor, rows, np.arange(40, 104))
        # Rows 0 to 2 in one go, 30 by itself, 68 and 69: from the first column asked for to the last.
        assert reads.nbytes - before == (3 * 64 + 64 + 2 * 64 + 3 * (200 - 64)) * x.itemsize


def test_large_sets_have_the_same_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((n, 40)).astype(np.float32) + 1 for n in (90, 70))
    whole = _solve.cosines(x, y)
    for held in (80 * 40, 1):
        monkeypatch.setattr(_solve, "_HELD", held)
        np.testing.assert_allclose(_solve.cosines(x, y), whole, atol=1e-6)
        np.testing.assert_allclose(_solve.cosines(y, x), whole.T, atol=1e-6)


def test_equal_rows_of_large_tables_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    a = decoder(0, vocabulary=600)
    b = dict(child(a, 0.9))
    name = "model.embed_tokens.weight"
    table = b[name].copy()
    kept = np.random.default_rng(1).permutation(600)[:250]
    table[kept] = a[name][kept[::-1]]
    table[:40] = a[name][7]  # one row of A many times: never counts
    table[50:60] = 0
    b[name] = table
    found = embeddings(models(a, b)).details["tables"]["embedding"]
    monkeypatch.setattr(_token_tables, "_LARGE", 1)
    large = embeddings(models(a, b)).details["tables"]["embedding"]
    assert found["equal"] >= 150
    assert {key: large[key] for key in ("equal", "tested", "runs", "kind", "near")} == {
        key: found[key] for key in ("equal", "tested", "runs", "kind", "near")
    }


def test_equal_large_tables_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of equal keys are compared value by value, unless digest, type and shape say all that there is to know."""
    monkeypatch.setattr(_token_tables, "_LARGE", 1)
    pair = models(decoder(0, vocabulary=600), decoder(0, vocabulary=600))
    name = "model.embed_tokens.weight"
    told = embeddings(pair)

    def no_rows(*_: object) -> None:
        raise AssertionError("rows were compared")

    monkeypatch.setattr(_token_tables, "_equal_indeed", no_rows)
    assert embeddings(pair).details == told.details
    assert told.details["tables"]["embedding"]["equal"] == 600
    other = replace(pair.b.tensors[name], dtype="F16")  # equal bytes, and other values
    with pytest.raises(AssertionError, match="rows were compared"):
        embeddings(replace(pair, b=replace(pair.b, tensors={**pair.b.tensors, name: other})))


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "verdict"), [(None, "shared_origin"), (1, "no_evidence")])
def test_large_models_get_the_same_verdict_from_fewer_channels(
    written: Path, monkeypatch: pytest.MonkeyPatch, seed: int | None, verdict: str
) -> None:
    pair = written / "root", written / ("child" if seed is None else "stranger")
    whole = weightprint.compare(*pair)
    monkeypatch.setattr(budgets, "LARGE", 1)
    large = budgets.STANDARD_OF_LARGE
    few = replace(large, channels=64, heads=replace(large.heads, channels=96), order=replace(large.order, channels=64))
    monkeypatch.setattr(budgets, "STANDARD_OF_LARGE", few)
    some = weightprint.compare(*pair)
    assert some.verdict == whole.verdict == verdict
    details = {e.test: e.details for e in some.evidence}
    assert details["aligned_weights"]["channels"] == 64
    assert details["head_agreement"]["channels"] == 96


def test_published_measures_of_large_models_agree_with_the_whole_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampled layers and channels: a child at rho .9 keeps about rho^2, strangers nothing, within the stated error."""
    a = decoder(0, d=64, h=280, layers=8)
    strange = decoder(1, d=64, h=280, layers=8)
    pairs = [models(a, child(a, 0.9)), models(a, strange)]
    names = ("ucka", "crs", "ghostspec", "phi_u", "phi_match")
    tests = [getattr(importlib.import_module(f"weightprint.evidence.published.{n}"), n) for n in names]
    whole = [[test(pair) for test in tests] for pair in pairs]
    monkeypatch.setattr(budgets, "LARGE", 1)
    monkeypatch.setattr(importlib.import_module("weightprint.evidence.published.ucka"), "_MATCHED", 16)
    for pair, before in zip(pairs, whole, strict=True):
        for test, one in zip(tests, before, strict=True):
            some = test(replace(pair))  # a copy, whose budget is of a large model
            assert some.applied
            assert one.statistic is not None
            assert some.statistic is not None
            assert some.n <= one.n
            assert abs(some.statistic - one.statistic) < (0.15 if test.name.startswith("phi") else 0.1), some.test


def test_a_plain_read_reads_every_byte(tmp_path: Path) -> None:
    for k, size in enumerate((0, 5, 3 << 20)):
        (tmp_path / f"{k}.safetensors").write_bytes(bytes(size))
    files = budget.files_of(tmp_path)
    assert budget.plain_read(files, 2)[1] == sum(f.stat().st_size for f in files) == 5 + (3 << 20)


def test_forgotten_files_still_read_the_same(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"abc" * 1000)
    budget.forget([file])
    assert budget.plain_read([file], 1)[1] == 3000


def test_every_test_says_how_much_of_its_time_was_linear_algebra(written: Path) -> None:
    found = weightprint.compare(written / "root", written / "child")
    spent = {e.test: (e.gemm_seconds, e.seconds) for e in found.evidence}
    assert all(0 <= gemm <= seconds for gemm, seconds in spent.values())
    assert spent["unit_agreement"][0] > 0
    assert {e["test"]: e["gemm_seconds"] for e in found.to_dict()["evidence"]} == {t: g for t, (g, _) in spent.items()}
