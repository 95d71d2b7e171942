"""*Re-encoded* and *identical* are certificates: `compare` gives none where `diff` sees other values, and the other way
round, whatever the two are stored in and by whatever factor they are apart."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import weightprint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from makers import BF16, ENCODINGS, Array, Arrays, folder, llama, matrix, plain

from tests.conftest import encode

SAME = {"same", "re_encoded"}
CERTIFIED = {"identical", "re_encoded"}
#: Up to beyond what bfloat16 and float16 hold, both ways; 1 is most likely to be drawn.
FACTORS = (1.0, 1.0, 1.0, -1.0, 1.02, 1.1, 1.7, 4.0, 0.5, 448.0, 1981.0, 1 / 1981, 2e38, 2e-38)


def two(of: dict[str, tuple[str, str, float]]) -> tuple[Arrays, Arrays]:
    """Per tensor: how A stores it, how B does, and the factor in between."""
    a: Arrays = {}
    b: Arrays = {}
    for k, (name, (first, second, factor)) in enumerate(of.items()):
        x = matrix(np.random.default_rng(k), 48, 64)
        with np.errstate(all="ignore"):
            a |= ENCODINGS[first][0](name, x)
            b |= ENCODINGS[second][0](name, (x * np.float64(factor)).astype(np.float32))
    return a, b


tensor = st.tuples(st.sampled_from(list(ENCODINGS)), st.sampled_from(list(ENCODINGS)), st.sampled_from(FACTORS))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(tensor, min_size=1, max_size=3))
def test_diff_and_compare_tell_one_story(drawn: list[tuple[str, str, float]]) -> None:
    a, b = two({f"{word}.weight": one for word, one in zip("xyz", drawn, strict=False)})
    with TemporaryDirectory() as at:
        ours, theirs = Path(at, "a.safetensors"), Path(at, "b.safetensors")
        ours.write_bytes(encode(a))
        theirs.write_bytes(encode(b))
        for one, other in ((ours, theirs), (theirs, ours)):
            same = set(weightprint.diff(one, other).counts) <= SAME
            verdict = weightprint.compare(one, other).verdict
            assert (verdict in CERTIFIED) == same, verdict
            if any(_apart(*pair) for pair in drawn):
                assert verdict not in CERTIFIED


def _apart(first: str, second: str, factor: float) -> bool:
    """The factor is more than both roundings: no two matrices of these are the same values."""
    return factor != 1 and abs(factor - 1) > 2.0 ** (1 - min(ENCODINGS[first][1], ENCODINGS[second][1]))


@pytest.mark.parametrize("first", ENCODINGS)
@pytest.mark.parametrize("second", ["F32", "F64"])
def test_without_a_factor_every_encoding_is_certified(tmp_path: Path, first: str, second: str) -> None:
    """Against the values themselves, from either side."""
    if first == second:
        pytest.skip("one encoding")
    a, b = two({"x.weight": (first, second, 1.0)})
    (tmp_path / "a.safetensors").write_bytes(encode(a))
    (tmp_path / "b.safetensors").write_bytes(encode(b))
    for names in (("a", "b"), ("b", "a")):
        paths = [tmp_path / f"{name}.safetensors" for name in names]
        assert set(weightprint.diff(*paths).counts) == {"re_encoded"}
        assert weightprint.compare(*paths).verdict == "re_encoded"


def projections(w: Arrays, end: str, factor: float, kind: object = np.float32) -> Arrays:
    """The model with the tensors whose names end so times a factor."""
    with np.errstate(over="ignore"):
        scaled = {n: (x * np.float32(factor) if n.endswith(end) else x) for n, x in w.items()}
    return {n: x for name, y in scaled.items() for n, x in plain(kind)(name, y).items()}


@pytest.mark.slow_but_first
@pytest.mark.parametrize(
    ("end", "factor"),
    [
        ("_proj.weight", 1981.0),
        ("down_proj.weight", 1.7),
        ("norm.weight", 1.1),
        ("norm.weight", 4.0),
        ("up_proj.weight", 2e36),
    ],
)
@pytest.mark.parametrize(
    "kinds", [(BF16, np.float32), (np.float32, np.float32), (BF16, BF16), (np.float16, np.float32)]
)
def test_a_factor_that_nothing_stores_is_an_operation(
    tmp_path: Path, end: str, factor: float, kinds: tuple[object, object]
) -> None:
    w = llama()
    ours = folder(tmp_path / "a", encode, projections(w, end, 1.0, kinds[0]))
    theirs = folder(tmp_path / "b", encode, projections(w, end, factor, kinds[1]))
    n = sum(name.endswith(end) for name in w)
    for paths, expected in (((ours, theirs), factor), ((theirs, ours), 1 / factor)):
        result = weightprint.compare(*paths)
        assert result.verdict == "shared_origin"
        assert not result.same
        (scaled,) = (o for o in result.operations if o.name == "scaled")
        assert scaled.parameters["tensors"] == n
        assert scaled.parameters["factor"] == pytest.approx(expected, rel=2e-3)
        assert {o.name for o in result.operations} <= {"scaled", "re_dtype"}
        assert "times" in result.result.sentence
        assert weightprint.diff(*paths).counts["changed"] == n


@pytest.mark.slow
def test_codes_whose_scale_was_lost_are_no_encoding(tmp_path: Path) -> None:
    w = llama()
    coded: Arrays = {}
    for name, x in w.items():
        coded |= ENCODINGS["I8 per row"][0](name, x) if x.ndim == 2 else {name: x}
    lost = {name: x for name, x in coded.items() if not name.endswith("_scale")}
    paths = [folder(tmp_path / at, encode, tensors) for at, tensors in (("a", w), ("b", coded), ("c", lost))]
    assert weightprint.compare(paths[0], paths[1]).verdict == "re_encoded"
    for one, other in ((paths[0], paths[2]), (paths[2], paths[0])):
        result = weightprint.compare(one, other)
        assert result.verdict == "shared_origin"
        assert "scale is stored nowhere" in result.result.sentence
        assert weightprint.diff(one, other).counts["changed"] == sum(x.ndim == 2 for x in w.values())


def test_simple_tensors_that_differ_are_no_copy(tmp_path: Path) -> None:
    """All ones against all twos: too simple to show an origin, and different all the same."""
    w: dict[str, Array] = {n: np.ones_like(x) if x.ndim == 1 else x for n, x in llama().items()}
    ours, theirs = (
        folder(tmp_path / at, encode, {n: x.astype(kind) for n, x in tensors.items()})
        for at, kind, tensors in (
            ("a", BF16, w),
            ("b", np.float32, w | {"model.norm.weight": w["model.norm.weight"] * 2}),
        )
    )
    for one, other in ((ours, theirs), (theirs, ours)):
        result = weightprint.compare(one, other)
        assert result.verdict == "shared_origin"
        assert "value for value" not in result.result.sentence
