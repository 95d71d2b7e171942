"""One pass over each model: the same answer however the pass is cut, and nothing read twice that was put by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import weightprint
from safetensors.numpy import load_file, save_file
from weightprint.compare.pipeline import examine, gather
from weightprint.evidence.aligned_units import Rows, aligned_units
from weightprint.evidence.aligned_weights import aligned_weights
from weightprint.evidence.embeddings import embeddings
from weightprint.evidence.evidence import Evidence
from weightprint.evidence.head_agreement import head_agreement
from weightprint.evidence.lookup.channel_sums import Sums
from weightprint.evidence.lookup.head_table import HeadTable
from weightprint.evidence.lookup.token_tables import Tables
from weightprint.evidence.lookup.unit_table import Lookup
from weightprint.evidence.test import Test
from weightprint.evidence.unit_agreement import found_in_place, unit_agreement
from weightprint.fingerprint import one_pass as streaming
from weightprint.fingerprint.steps import Collector

#: Tests that look while the models stream by, and what they look with.
KINDS: dict[Test, type[Collector]] = {
    aligned_weights: Sums,
    aligned_units: Rows,
    unit_agreement: Lookup,
    head_agreement: HeadTable,
    embeddings: Tables,
}


@pytest.fixture(scope="module")
def demo() -> Iterator[Path]:
    with as_file(files("weightprint.demo") / "models") as folder:
        yield folder


def plain(found: weightprint.Comparison) -> dict[str, Any]:
    """What does not depend on the clock or on how much was read."""
    out = found.to_dict()
    for key in ("seconds", "gemm_seconds", "bytes_read", "peak_rss_bytes"):
        del out[key]
    for evidence in out["evidence"]:
        del evidence["seconds"], evidence["gemm_seconds"]
    return out


def bare(found: Evidence) -> Evidence:
    return replace(found, seconds=0.0, gemm_seconds=0.0)


@pytest.mark.parametrize("other", ["finetune", "moe", "stranger"])
def test_blocks_one_by_one_or_all_at_once(demo: Path, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weightprint.compare(demo / "parent", demo / other)
    monkeypatch.setattr(streaming, "_SMALL", 0)
    by_block = weightprint.compare(demo / "parent", demo / other)
    monkeypatch.setattr(streaming, "_HELD", 0)
    read_again = weightprint.compare(demo / "parent", demo / other)
    assert plain(whole) == plain(by_block) == plain(read_again)
    assert by_block.bytes_read < read_again.bytes_read


def test_steps_are_taken_once(demo: Path) -> None:
    a, b = (weightprint.open(demo / name) for name in ("parent", "finetune"))
    models = examine(a, b)[2]
    models = replace(models, settled=found_in_place(models))
    assert {type(look) for look in models.collectors} == set(KINDS.values())
    for test, kind in KINDS.items():
        collectors = next(look for look in models.collectors if isinstance(look, kind))
        spent = collectors.seconds
        found = test(models)
        assert collectors.seconds == spent
        assert found.seconds >= spent
        afresh = test(replace(models, collectors=[]))
        assert bare(found).to_dict() == bare(afresh).to_dict()
    a.close()
    b.close()


def test_what_the_pass_held_is_let_go(demo: Path) -> None:
    """B's rows go when the last block of A that wanted them has passed, and all results once the tests have run."""
    a, b = (weightprint.open(demo / name) for name in ("parent", "stranger"))
    models = examine(a, b)[2]
    held: Any = {type(look): look for look in models.collectors}
    assert not held[Sums]._held
    assert not held[Tables]._of_b
    gather(models)
    assert not models.collectors
    a.close()
    b.close()


def test_a_pair_by_values_brings_its_own_look(demo: Path, tmp_path: Path) -> None:
    """One renamed matrix is paired by its values after the pass, so the sums are of other pairs, and taken anew."""
    tensors = load_file(next((demo / "finetune").glob("*.safetensors")))
    old = next(name for name in tensors if ".1.mlp.up" in name)
    tensors["something.else"] = tensors.pop(old)
    save_file(tensors, tmp_path / "b.safetensors")
    a, b = weightprint.open(demo / "parent"), weightprint.open(tmp_path / "b.safetensors")
    models = examine(a, b)[2]
    assert [(p.a.name, p.by) for p in models.pairs if p.b.name == "something.else"] == [(old, "values")]
    collectors = next(look for look in models.collectors if isinstance(look, Sums))
    found = aligned_weights(models)
    assert "something.else" in found.details["cosines"]
    assert all(pair.b.name != "something.else" for pairs in collectors.regions.values() for pair, _ in pairs)
    assert bare(found).to_dict() == bare(aligned_weights(replace(models, collectors=[]))).to_dict()
    a.close()
    b.close()


def test_what_turns_out_constant_is_looked_at_anew(demo: Path, tmp_path: Path) -> None:
    """Headers don't tell a matrix of zeros, so steps were taken with it; the test leaves it out."""
    tensors = load_file(next((demo / "finetune").glob("*.safetensors")))
    gone = [name for name in tensors if ".1.mlp.up" in name or ".1.self_attn.q" in name]
    assert len(gone) == 2
    save_file({n: np.zeros_like(x) if n in gone else x for n, x in tensors.items()}, tmp_path / "b.safetensors")
    a, b = weightprint.open(demo / "parent"), weightprint.open(tmp_path / "b.safetensors")
    models = examine(a, b)[2]
    for test in KINDS:
        found = test(models)
        assert bare(found).to_dict() == bare(test(replace(models, collectors=[]))).to_dict()
        assert 1 not in {match.b[1] for match in found.matches}
    a.close()
    b.close()


@pytest.mark.parametrize("small", [0, 1 << 30])
def test_an_exception_in_the_callback_stops_the_pass(demo: Path, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_SMALL", small)
    told: list[tuple[int, int]] = []
    weightprint.compare(demo / "parent", demo / "finetune", progress=lambda *at: told.append(at))
    total = told[-1][1]
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted(done for done, _ in told)

    def stop(done: int, _: int) -> None:
        raise RuntimeError(f"enough at {done}")

    with pytest.raises(RuntimeError, match="enough"):
        weightprint.compare(demo / "parent", demo / "finetune", progress=stop)
