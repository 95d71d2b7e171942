"""Statements for machines are what their formats' own validators accept, and say what the comparison says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file
from weightprint.cli import cli
from weightprint.demo import demo_models

PAIRS = {"moe": "ancestors", "finetune": "variants", "parent": "variants", "stranger": None}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any, Path]]:
    demo = demo_models.write(tmp_path_factory.mktemp("demo") / "models")
    out = {}
    for name in PAIRS:
        path = demo / f"{name}.json"
        result = CliRunner().invoke(cli, ["compare", str(demo / "parent"), str(demo / name), "--attest", str(path)])
        assert result.exit_code in (0, 1), result.output
        out[name] = (json.loads(path.read_text()), json.loads((demo / f"{name}.cdx.json").read_text()), demo)
    return out


@pytest.mark.parametrize("name", PAIRS)
def test_the_statement_is_one(made: dict[str, Any], name: str) -> None:
    pb = pytest.importorskip("in_toto_attestation.v1.statement_pb2")
    from google.protobuf import json_format
    from in_toto_attestation.v1.statement import Statement

    told, _, demo = made[name]
    parsed = json_format.Parse(json.dumps(told), pb.Statement())  # refuses fields that the format has not
    Statement.copy_from_pb(parsed).validate()
    sha256 = {side: hashlib.sha256((demo / of / "model.safetensors").read_bytes()).hexdigest()
              for side, of in (("a", "parent"), ("b", name))}  # fmt: skip
    assert told["subject"] == [{"name": "model.safetensors", "digest": {"sha256": sha256["b"]}}]
    models = told["predicate"]["models"]
    assert {side: of["files"][0]["digest"]["sha256"] for side, of in models.items()} == sha256
    assert told["predicate"]["method"]["command"].startswith("weightprint compare ")
    if name == "stranger":
        assert told["predicate"]["verdict"] == "no_evidence"
        assert told["predicate"]["error_rate"]["of"] == "related"


@pytest.mark.parametrize("name", PAIRS)
def test_the_bill_of_materials_is_one(made: dict[str, Any], name: str) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json")
    from cyclonedx.schema import SchemaVersion

    told = made[name][1]
    assert validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(told)) is None
    (component,) = told["components"]
    assert component["type"] == "machine-learning-model"
    pedigree = component.get("pedigree", {})
    assert set(pedigree) - {"notes"} == ({PAIRS[name]} if PAIRS[name] else set())
    assert {"name": "weightprint:verdict", "value": made[name][0]["predicate"]["verdict"]} in component["modelCard"][
        "properties"
    ]


def test_a_mix_names_all_its_parents(tmp_path: Path) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json")
    from cyclonedx.schema import SchemaVersion

    demo = demo_models.write(tmp_path / "models")
    a, c = (load_file(demo / name / "model.safetensors") for name in ("parent", "stranger"))
    (tmp_path / "mixed").mkdir()
    mixed = {name: 0.75 * a[name].astype(np.float32) + 0.25 * c[name].astype(np.float32) for name in a}
    save_file(mixed, tmp_path / "mixed" / "model.safetensors")
    models = [str(demo / "parent"), str(tmp_path / "mixed"), "--with", str(demo / "stranger")]
    CliRunner().invoke(cli, ["compare", *models, "--attest", str(tmp_path / "x.json")])
    mix = json.loads((tmp_path / "x.json").read_text())["predicate"]["mix"]
    assert mix["method"] == "linear"
    assert {Path(w["parent"]).name: round(w["weight"], 2) for w in mix["weights"]} == {"parent": 0.75, "stranger": 0.25}
    told = (tmp_path / "x.cdx.json").read_text()
    assert validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(told) is None
    pedigree = json.loads(told)["components"][0]["pedigree"]
    assert [Path(kin["name"]).name for kin in pedigree["ancestors"]] == ["parent", "stranger"]


def test_the_validators_refuse_what_is_wrong(made: dict[str, Any]) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json")
    from cyclonedx.schema import SchemaVersion

    told = json.loads(json.dumps(made["moe"][1]))
    told["components"][0]["modelCard"]["verdict"] = "shared_origin"
    assert validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(told)) is not None


def test_an_input_is_no_place_for_a_statement(tmp_path: Path) -> None:
    demo = demo_models.write(tmp_path / "models")
    config = demo / "parent" / "config.json"
    before = config.read_bytes()
    result = CliRunner().invoke(cli, ["compare", str(demo / "parent"), str(demo / "moe"), "--attest", str(config)])
    assert result.exit_code == 2
    assert config.read_bytes() == before
