"""Statements for machines are what their formats' own validators accept, and say what the comparison says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
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
