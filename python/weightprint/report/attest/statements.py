"""A comparison as statements for machines: an in-toto statement, and a CycloneDX bill of materials with a model card.

Neither is signed here: that is for cosign, in-toto or whatever signs a release. Both name every file by its SHA-256.

    in-toto      Statement v1 (https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md) about B's files;
                 the predicate holds verdict, method, error rate, version, and the digests of both models' files
    CycloneDX    1.6 (https://cyclonedx.org/docs/1.6/json/), component of type machine-learning-model: A stands in B's
                 pedigree as ancestor or descendant where the direction is known, else as variant
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from weightprint.evidence.thresholds import LOG10_P
from weightprint.report.attest.files import FileDigest
from weightprint.report.page.compare import rate_words
from weightprint.verdict.error_rates import error_rate

if TYPE_CHECKING:
    from weightprint.compare.compare import Comparison, ModelSummary

__all__ = ["PREDICATE_TYPE", "cyclonedx", "in_toto"]

PREDICATE_TYPE = "https://github.com/weightprint/weightprint/blob/main/docs/attest.md#comparison-v1"
_HOME = "https://github.com/weightprint/weightprint"
_HUB_NAME = re.compile(r"(?:hf://)?([\w.-]+/[\w.-]+)(?:@.*)?")

Json = dict[str, Any]


def in_toto(comparison: Comparison, digests: Sequence[FileDigest], command: str) -> Json:
    """The statement: its subjects are B's files."""
    result, rate = comparison.result, error_rate(comparison.verdict)
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": _descriptors("b", digests),
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "verdict": result.name,
            "sentence": result.sentence,
            "readings": list(result.readings),
            "log10_p": result.log10_p,
            "log10_p_needed": LOG10_P,
            "share": result.share.to_dict(),
            "direction": result.direction.to_dict(),
            "operations": [operation.to_dict() for operation in comparison.operations],
            "mix": _mix(comparison),
            "against": list(result.against),
            "error_rate": None
            if rate is None
            else {
                "wrong": rate.wrong,
                "pairs": rate.pairs,
                "independent_models": rate.roots,
                "at_most": rate.at_most,
                "of": rate.of,
                "called": rate.called,
            },
            "error_rate_words": rate_words(comparison),
            "method": {
                "name": "weightprint compare",
                "uri": f"{_HOME}/blob/main/docs/methods.md",
                "version": comparison.version,
                "command": command,
                "parameters": dict(comparison.parameters),
            },
            "models": {
                side: {
                    "source": model.source,
                    "digest_of_all_tensors": model.digest,
                    "n_parameters": model.n_parameters,
                    "files": _descriptors(side, digests),
                }
                for side, model in (("a", comparison.a), ("b", comparison.b))
            },
        },
    }


def cyclonedx(comparison: Comparison, digests: Sequence[FileDigest]) -> Json:
    """The bill of materials: B, with what was found as its model card, and A in its pedigree."""
    b = _component("b", comparison.b, comparison, digests)
    b["modelCard"] = _model_card(comparison)
    if comparison.result.related:
        kin = _component("a", comparison.a, comparison, digests)
        role = {"a": "ancestors", "b": "descendants", None: "variants"}[comparison.history.told_from]
        if comparison.verdict == "identical":
            role = "variants"
        others = [
            {"type": "machine-learning-model", "bom-ref": f"model-parent-{k}", "name": name}
            for k, name in enumerate(_further(comparison), 1)
        ]
        b["pedigree"] = {role: [kin, *others], "notes": f"{comparison.result.sentence} {rate_words(comparison)}."}
    files = "".join(sorted(d.sha256 for d in digests))
    made = uuid.uuid5(uuid.NAMESPACE_URL, f"{_HOME} {comparison.version} {comparison.verdict} {files}")
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{made}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tools": {"components": [{"type": "application", "name": "weightprint", "version": comparison.version}]},
        },
        "components": [b],
    }


def _mix(comparison: Comparison) -> Json | None:
    """Of which models, with which weights, B is mixed; None where that is not known."""
    mix = comparison.mix
    if mix is None or not mix.explained:
        return None
    weights = [{"parent": w.parent, "weight": w.value, "low": w.low, "high": w.high} for w in mix.weights]
    return {"method": mix.method, "base": mix.base, "weights": weights, "reproduces": mix.reproduces}


def _further(comparison: Comparison) -> list[str]:
    """Parents of a mix beside A, by the names that they were given; their files are not read again for digests."""
    mix = comparison.mix
    return [p for p in mix.parents if p != comparison.a.source] if mix is not None and mix.explained else []


def _descriptors(side: str, digests: Sequence[FileDigest]) -> list[Json]:
    return [{"name": d.name, "digest": {"sha256": d.sha256}} for d in digests if d.side == side]


def _component(side: str, model: ModelSummary, comparison: Comparison, digests: Sequence[FileDigest]) -> Json:
    out: Json = {"type": "machine-learning-model", "bom-ref": f"model-{side}", "name": model.source}
    revision = next((f["revision"] for f in comparison.files.get(side, ()) if f.get("revision")), None)
    if revision and (hub := _HUB_NAME.fullmatch(model.source)):
        out |= {"version": revision, "purl": f"pkg:huggingface/{hub[1]}@{revision}"}
    out["components"] = [
        {"type": "file", "bom-ref": f"{side}-{i}", "name": d.name, "hashes": [{"alg": "SHA-256", "content": d.sha256}]}
        for i, d in enumerate(d for d in digests if d.side == side)
    ]
    return out


def _model_card(comparison: Comparison) -> Json:
    result, b = comparison.result, comparison.b
    share = result.share
    metrics: list[Json] = []
    if share.value is not None:
        interval = {"lowerBound": f"{share.low:.4f}", "upperBound": f"{share.high:.4f}"}
        what = "share of parameters found in model A"
        metrics.append({"type": what, "value": f"{share.value:.4f}", "confidenceInterval": interval})
    if result.log10_p is not None:
        metrics.append({"type": "log10 p of so much agreement by chance", "value": f"{result.log10_p:.2f}"})
    told = {"verdict": result.name, "error_rate": rate_words(comparison), "later": result.direction.later or "unknown"}
    told |= {f"operation.{i}": operation.name for i, operation in enumerate(comparison.operations)}
    card: Json = {
        "quantitativeAnalysis": {"performanceMetrics": metrics},
        "considerations": {"technicalLimitations": list(result.against)},
        "properties": [{"name": f"weightprint:{name}", "value": value} for name, value in told.items()],
    }
    return card | ({"modelParameters": {"architectureFamily": b.family}} if b.family else {})
