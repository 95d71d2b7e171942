"""What `compare` prints on real models is true.

* SCEPTR -> SCEPTR_finetuned: a real fine-tune (its config names SCEPTR's state dict as its start).
* 12 SCEPTR models of one architecture, trained apart: 66 pairs, and three of other sizes.
* all-MiniLM-L6-v2 in float32 against its int8 ONNX copy, with other names and transposed matrices.
* SmolLM2-135M against a bfloat16 copy and a noised one.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import weightprint
import zoo
from weightprint.compare.compare import Comparison
from weightprint.evidence.evidence import Evidence

pytestmark = pytest.mark.slow  # fetches its models

#: What strangers may be called: how much power there was decides which.
NOTHING = {"no_evidence", "inconclusive"}


def evidence(result: Comparison, test: str) -> Evidence:
    return next(e for e in result.evidence if e.test == test)


def test_a_real_fine_tune() -> None:
    result = weightprint.compare(zoo.sceptr("SCEPTR"), zoo.sceptr("SCEPTR_finetuned"))
    assert result.verdict == "shared_origin"
    assert (result.log10_p or 0) < -80
    # The first two of its three blocks were frozen: equal bit for bit, which the report says.
    exact = evidence(result, "exact_sharing")
    assert exact.statistic == 32  # q, k and v count as three
    assert {i for i in range(3) if any(f".layers.{i}." in f.b for f in exact.found)} == {0, 1}
    assert exact.effect == pytest.approx(0.651, abs=0.001)
    weights = evidence(result, "aligned_weights")
    assert weights.statistic == 64
    cosines = {name: c for name, c in weights.details["cosines"].items() if ".layers.2." in name}
    assert all(0.9 < c < 0.999 for c in cosines.values())  # trained on, but not far
    assert evidence(result, "aligned_units").statistic == 768
    assert result.result.direction.later is None
    assert result.result.share.low > 0.98
    assert any("ruled out" in line for line in result.result.against)
    assert not result.same


@pytest.fixture(scope="module")
def strangers() -> list[Comparison]:
    paths = [zoo.sceptr(name) for name in zoo.SCEPTR_INDEPENDENT]
    return [weightprint.compare(a, b) for a, b in itertools.combinations(paths, 2)]


def test_strangers_of_one_architecture_are_never_kin(strangers: list[Comparison]) -> None:
    assert len(strangers) == 66
    assert {result.verdict for result in strangers} <= NOTHING
    assert all(evidence(result, "exact_sharing").statistic == 0 for result in strangers)


@pytest.mark.parametrize("test", ["aligned_weights", "aligned_units", "norm_gains"])
def test_p_values_of_real_strangers_are_not_too_small(strangers: list[Comparison], test: str) -> None:
    p = np.array([e.log10_p for result in strangers if (e := evidence(result, test)).applied], float)
    assert p.size == 66
    for alpha in (0.5, 0.2, 0.1, 0.05):
        assert np.count_nonzero(p <= np.log10(alpha)) <= alpha * p.size + 3 * np.sqrt(p.size * alpha)
    assert p.min() > -3


def test_real_strangers_stay_within_the_quoted_deviation(strangers: list[Comparison]) -> None:
    z = np.array([evidence(result, "aligned_weights").details["z"] for result in strangers])
    assert abs(z.mean()) < 0.5
    assert 0.6 < z.std() < 1.4
    assert np.abs(z).max() < 4


def test_the_fine_tune_is_no_kin_of_the_others() -> None:
    for name in zoo.SCEPTR_INDEPENDENT:
        if name != "SCEPTR":
            assert weightprint.compare(zoo.sceptr(name), zoo.sceptr("SCEPTR_finetuned")).verdict in NOTHING


def test_other_sizes_are_not_called_kin() -> None:
    for name in zoo.SCEPTR_OTHER_SIZES:
        assert weightprint.compare(zoo.sceptr("SCEPTR"), zoo.sceptr(name)).verdict in NOTHING


def test_minilm_and_its_int8_copy() -> None:
    result = weightprint.compare(zoo.minilm(), zoo.minilm_int8())
    assert result.verdict == "re_encoded"
    assert (result.log10_p or 0) < -500  # no matrix but one of two rows met by name; pairing by values is paid for
    same = evidence(result, "same_values")
    assert (same.details["n_same"], same.details["n_differ"]) == (38, 0)
    assert len(same.details["scales"]) == 38
    kinds = set(same.details["how"].values())
    assert kinds == {"F32 to I8, one scale per row", "F32 to I8, one scale per column, transposed"}
    assert result.result.direction.later == "b"
    assert [o.name for o in result.operations] == ["rename", "quantise", "transpose"]
    # The copy lacks the pooler: said, and not counted as the same.
    assert any("pooler.dense.weight" in line for line in result.result.against)
    assert not result.same
    assert result.result.share.low > 0.9999


def test_minilm_renamed_resharded_and_reordered(tmp_path: Path) -> None:
    tensors = zoo.load(zoo.minilm())
    renamed = {f"t{i:04d}": tensors[name] for i, name in enumerate(sorted(tensors, reverse=True))}
    result = weightprint.compare(zoo.minilm(), zoo.save_sharded(tmp_path / "copy", renamed, 3))
    assert (result.verdict, result.same) == ("identical", True)
    assert result.a.digest == result.b.digest


def test_minilm_trained_on_with_names_hidden(tmp_path: Path) -> None:
    """No name helps: tensors are paired by values, and the p-value pays for that."""
    rng = np.random.default_rng(0)
    tensors = {n: x for n, x in zoo.load(zoo.minilm()).items() if x.dtype == np.float32}
    hidden = {
        f"t{i:04d}": (x + 0.3 * x.std() * rng.standard_normal(x.shape)).astype(np.float32)
        for i, x in enumerate(tensors.values())
    }
    result = weightprint.compare(zoo.minilm(), zoo.save(tmp_path / "hidden.safetensors", hidden))
    assert result.verdict == "shared_origin"
    assert result.parameters["log10_pairings"] > 20
    assert (result.log10_p or 0) < -100


def test_smollm2_and_a_bfloat16_copy() -> None:
    result = weightprint.compare(zoo.smollm2(), zoo.smollm2_bf16())
    assert (result.verdict, result.same) == ("re_encoded", True)
    assert result.result.direction.later is None  # what was decoded from codes does not fill the cells of a rounding
    assert result.result.share.low == 1.0


def test_smollm2_and_a_noised_copy() -> None:
    result = weightprint.compare(zoo.smollm2(), zoo.smollm2_noised())
    assert result.verdict == "shared_origin"
    weights = evidence(result, "aligned_weights")
    assert weights.details["matched_cosine"] == pytest.approx(1 / np.sqrt(1 + 0.05**2), abs=0.001)
    assert abs(weights.details["neighbour_cosine"]) < 0.01
    assert evidence(result, "same_values").details["n_same"] == 0
    assert [row[:2] for row in result.result.layer_map] == [(i, i) for i in range(30)]
    assert result.result.share.low > 0.999


def test_quick_effort_reads_a_fiftieth_and_sees_the_noised_copy() -> None:
    result = weightprint.compare(zoo.smollm2_bf16(), zoo.smollm2_noised(), effort="quick")
    assert result.verdict == "shared_origin"
    assert result.bytes_read < 0.02 * (result.a.n_bytes + result.b.n_bytes)
    assert evidence(result, "exact_sharing").why_not is not None


def test_smollm2_with_half_of_its_blocks_replaced(tmp_path: Path) -> None:
    """Blocks 15-29 are replaced by noise of the same spread: partly shared, and the map says which."""
    rng = np.random.default_rng(1)
    out = {}
    for name, x in zoo.load(zoo.smollm2_bf16()).items():
        new = name.startswith("blk.") and int(name.split(".")[1]) >= 15
        out[name] = (rng.standard_normal(x.shape) * x.astype(np.float32).std()).astype(ml_dtypes.bfloat16) if new else x
    path = zoo.save(tmp_path / "half.safetensors", out)
    result = weightprint.compare(zoo.smollm2(), path)
    path.unlink()  # 269 MB that pytest would keep for three runs
    assert result.verdict == "partly_shared"
    assert [row[:2] for row in result.result.layer_map] == [(i, i if i < 15 else None) for i in range(30)]
