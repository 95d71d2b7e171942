"""Runs another tool inside that tool's own interpreter: `PYTHON peer_driver.py NAME`, one JSON line in, one out.

In: {"a": folder, "b": folder}. Out: {"applied", "score", "verdict", "called", "more", "why_not", "seconds"}: the tool's
own score, its own words, whether it calls the two related by its own thresholds, and scores it gives beside the main
one. Needs nothing of weightprint, reads local folders only, and is told to stay offline.

provenancekit reads a tokenizer with every model and stops without one. Ours are byte models that have no tokenizer
file, so it is given folders of links with the byte tokenizer beside the weights: the same for every model, as is true.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

Answer = dict[str, Any]


def modeldna() -> Callable[[str, str], Answer]:
    """modelDNA 0.1: probability that B is derived from A; B is the suspect."""
    from modeldna.compare import compare_fingerprints  # type: ignore[import-not-found]
    from modeldna.fingerprint.extract import extract_fingerprint  # type: ignore[import-not-found]
    from modeldna.io.source import open_source  # type: ignore[import-not-found]
    from modeldna.verdict import judge  # type: ignore[import-not-found]

    known: dict[str, tuple[Any, float]] = {}

    def fingerprint(folder: str) -> tuple[Any, float]:
        if folder not in known:
            started = time.perf_counter()
            known[folder] = (extract_fingerprint(open_source(folder), model_id=folder), 0.0)
            known[folder] = (known[folder][0], time.perf_counter() - started)
        return known[folder]

    def run(a: str, b: str) -> Answer:
        (ours, before), (theirs, then) = fingerprint(a), fingerprint(b)
        started = time.perf_counter()
        evidence = compare_fingerprints(theirs, ours)
        said = judge(
            [(evidence, a)], suspect_dtype=theirs.arch.torch_dtype, candidate_dtypes={a: ours.arch.torch_dtype}
        )
        seconds = before + then + time.perf_counter() - started
        result = said.candidates[0]
        called = said.verdict.value in ("EXACT_COPY", "QUANTIZED_COPY", "FINE_TUNE", "SAME_LINEAGE", "LIKELY_MERGE")
        return {
            "applied": result.probability is not None,
            "score": result.probability,
            "verdict": said.verdict.value,
            "called": called,
            "more": {},
            "why_not": result.ruled_out,
            "seconds": seconds,
        }

    return run


def provenance_kit() -> Callable[[str, str], Answer]:
    """Cisco's provenance kit 1.0: pipeline score (its decision) and, beside it, the score of the weights alone."""
    from provenancekit.core.scanner import ModelProvenanceScanner  # type: ignore[import-not-found]
    from provenancekit.services.cache import NullCache  # type: ignore[import-not-found]

    shelf = Path(tempfile.mkdtemp(prefix="peer-"))
    atexit.register(shutil.rmtree, shelf, ignore_errors=True)
    scanner = ModelProvenanceScanner(cache=NullCache())
    extract, known = scanner._extract_model, {}

    def remember(model: str) -> Any:
        if model not in known:
            known[model] = extract(model)
        return known[model]

    scanner._extract_model = remember

    def run(a: str, b: str) -> Answer:
        said = scanner.compare(*(str(_with_tokenizer(Path(folder), shelf)) for folder in (a, b)))
        score, identity = said.scores.pipeline_score, said.scores.identity_score
        finite = score is not None and math.isfinite(score)
        decision = said.scores.provenance_decision
        return {
            "applied": finite,
            "score": score if finite else None,
            "verdict": decision,
            "called": decision.startswith(("Confirmed", "High-Confidence")),
            "more": {"weights_only": identity},
            "why_not": None if finite else "no score",
            "seconds": said.timing.weight_feature_extract_seconds + said.timing.metadata_extract_seconds,
        }

    return run


def _with_tokenizer(folder: Path, shelf: Path) -> Path:
    """A folder of links to a model's files, with the tokenizer whose tokens are bytes."""
    linked = shelf / folder.name
    if not linked.exists():
        linked.mkdir(parents=True)
        for file in folder.iterdir():
            if file.name != "truth.json":
                (linked / file.name).symlink_to(file.resolve())
        plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
        rest = [byte for byte in range(256) if byte not in plain]
        vocabulary = {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(rest)}
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        tokenizer: Answer = {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": level, "post_processor": None, "decoder": level,
            "model": {
                "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary,
                "merges": [],
            },
        }  # fmt: skip
        (linked / "tokenizer.json").write_text(json.dumps(tokenizer))
        (linked / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return linked


TOOLS: dict[str, tuple[str, Callable[[], Callable[[str, str], Answer]]]] = {
    "modeldna": ("modeldna", modeldna),
    "provenance_kit": ("cisco-ai-provenance-kit", provenance_kit),
}


def main() -> None:
    """Say the tool's version (or why it can't run), then answer line by line."""
    package, start = TOOLS[sys.argv[1]]
    out, sys.stdout = sys.stdout, sys.stderr  # a tool that prints must not break the protocol
    try:
        run = start()
    except Exception as error:  # whatever another tool's import raises is the answer
        print(json.dumps({"failed": f"{type(error).__name__}: {error}"[:300]}), file=out, flush=True)
        return
    print(json.dumps({"version": version(package)}), file=out, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                answer = run(asked["a"], asked["b"])
        except Exception as error:  # a pair that the tool can't read
            why = " ".join(str(error).split())[:200]
            answer = {"applied": False, "score": None, "why_not": f"{type(error).__name__}: {why}", "seconds": None}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
