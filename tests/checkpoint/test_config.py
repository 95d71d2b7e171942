"""`Checkpoint.config`: found beside the files, and never able to stop or crash a reader."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import weightprint
from weightprint.anatomy.geometry import model_types

ONE = {"w": np.arange(1, 33, dtype=np.float32).reshape(4, 8)}

BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "config_not_json"),
    "cut": (b'{"a": 1', "config_not_json"),
    "array": (b"[1]", "config_not_object"),
    "string": (b'"x"', "config_not_object"),
    "latin1": (b'{"a": "\xe9"}', "config_not_utf8"),
    "utf16": ('{"a": 1}'.encode("utf-16"), "config_not_utf8"),
    "bom": (b'\xef\xbb\xbf{"a": 1}', "config_not_json"),
    "overlong": (b'{"a": "\xc0\x80"}', "config_not_utf8"),
    "surrogate": (b'{"a": "\\ud800"}', "config_not_json"),
    "twice": (b'{"a": 1, "b": 2, "a": 2}', "config_duplicate_key"),
    "twice inside": (b'{"t": {"b": 1, "b": 1}}', "config_duplicate_key"),
    "deep": (b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "config_not_json"),
    "long integer": (b'{"a": ' + b"9" * 100_000 + b"}", "config_not_json"),
    "comment": (b'{"a": 1} // x', "config_not_json"),
    "too large": (b'{"a": "' + b"x" * 16_000_001 + b'"}', "config_too_large"),
}


def with_config(save: Callable[..., Path], text: bytes, name: str = "m/model.safetensors") -> Path:
    path = save(name, ONE)
    (path.parent / "config.json").write_bytes(text)
    return path


def test_config_of_a_folder_and_of_a_file_in_it(save: Callable[..., Path]) -> None:
    path = with_config(save, b'{"model_type": "llama", "hidden_size": 64}')
    for model in (path, path.parent):
        checkpoint = weightprint.open(model)
        assert dict(checkpoint.config) == {"model_type": "llama", "hidden_size": 64}
        assert checkpoint.config_file.path == str(path.parent / "config.json")
        assert checkpoint.config_file.findings == ()


def test_config_of_shards_and_of_an_index(save_sharded: Callable[..., Path]) -> None:
    folder = save_sharded("s", [{"a": ONE["w"]}, {"b": ONE["w"]}])
    (folder / "config.json").write_text('{"x": [1, {"y": null}]}')
    for model in (folder, folder / "model.safetensors.index.json"):
        assert dict(weightprint.open(model).config) == {"x": [1, {"y": None}]}


def test_config_of_a_hub_snapshot(hub: Callable[..., Path], encoded: Callable[..., bytes]) -> None:
    hub("org/name", "c" * 40, {"model.safetensors": encoded(ONE), "config.json": b'{"model_type": "gpt2"}'})
    assert weightprint.open("org/name").config["model_type"] == "gpt2"


def test_missing_config_is_empty_and_no_finding(save: Callable[..., Path]) -> None:
    path = save("alone/model.safetensors", ONE)
    checkpoint = weightprint.open(path)
    assert dict(checkpoint.config) == {}
    assert checkpoint.config_file.path is None
    assert weightprint.check(path).sound


@pytest.mark.parametrize(("text", "code"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_config_is_a_finding(save: Callable[..., Path], text: bytes, code: str) -> None:
    checkpoint = weightprint.open(with_config(save, text))
    assert dict(checkpoint.config) == {}
    (finding,) = checkpoint.config_file.findings
    assert (finding.code, finding.severity) == (code, "warning")
    assert "config.json" in finding.message
    assert len(finding.message) < 500


def test_check_reports_a_broken_config(save: Callable[..., Path]) -> None:
    report = weightprint.check(with_config(save, b"{"))
    assert [finding.code for finding in report.findings] == ["config_not_json"]
    assert report.scan is not None


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_null(save: Callable[..., Path], text: str) -> None:
    checkpoint = weightprint.open(with_config(save, f'{{"time_step_limit": [0.5, {text}]}}'.encode()))
    assert checkpoint.config["time_step_limit"] == [0.5, None]
    (finding,) = checkpoint.config_file.findings
    assert (finding.code, finding.severity) == ("config_not_finite", "note")
    json.dumps(dict(checkpoint.config), allow_nan=False)


@pytest.mark.parametrize("value", [[], {}, {"a": [1]}, 7, None])
def test_a_model_type_that_is_no_word_is_none(save: Callable[..., Path], value: object) -> None:
    path = with_config(save, json.dumps({"model_type": value, "text_config": {"model_type": value}}).encode())
    assert model_types(weightprint.open(path).config) == frozenset()


def test_link_out_of_the_folder_is_not_followed(save: Callable[..., Path], tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"password": 1}')
    path = save("m/model.safetensors", ONE)
    os.symlink(secret, path.parent / "config.json")
    checkpoint = weightprint.open(path.parent)
    assert dict(checkpoint.config) == {}
    assert [finding.code for finding in checkpoint.config_file.findings] == ["link_outside"]


@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", os.mkdir)], ids=["folder", "fifo"])
def test_config_that_is_no_file(save: Callable[..., Path], make: Callable[[Path], None]) -> None:
    path = save("m/model.safetensors", ONE)
    make(path.parent / "config.json")
    checkpoint = weightprint.open(path)
    assert dict(checkpoint.config) == {}
    assert len(checkpoint.config_file.findings) == 1


def test_config_is_read_lazily_and_travels_with_the_checkpoint(save: Callable[..., Path]) -> None:
    path = save("m/model.safetensors", ONE)
    early, late = weightprint.open(path), weightprint.open(path)
    assert dict(early.config) == {}
    (path.parent / "config.json").write_text('{"a": 1}')
    assert dict(late.config) == {"a": 1}
    # What was read goes along; what was not is read there.
    assert dict(pickle.loads(pickle.dumps(early)).config) == {}
    (path.parent / "config.json").unlink()
    again: Any = pickle.loads(pickle.dumps(late))
    assert dict(again.config) == {"a": 1}
    assert again.config_file.path == late.config_file.path


def test_config_can_not_be_changed(save: Callable[..., Path]) -> None:
    checkpoint = weightprint.open(with_config(save, b'{"a": 1}'))
    with pytest.raises(TypeError):
        checkpoint.config["a"] = 2  # type: ignore[index]


def test_an_adapter_has_its_own_config(save: Callable[..., Path]) -> None:
    path = save("lora/adapter_model.safetensors", ONE)
    (path.parent / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (path.parent / "config.json").write_text('{"model_type": "llama"}')
    assert dict(weightprint.open(path.parent).config) == {"peft_type": "LORA"}
