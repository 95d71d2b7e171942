"""A quantised copy with one tensor's scales, a block's scale or codes changed: never certified, by neither verb; a
factor is named, however near to one, beside the decoded original in either type and beside the sound copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stored_eight_bits
import stored_fp4
import stored_packed
import weightprint
from makers import BF16, Array, Arrays, folder, llama

from tests.conftest import encode

DOWN = "model.layers.0.mlp.down_proj"

#: Scheme → a layer of (out, in), the tensors that hold its scales, one block's scale, and its codes.
SCHEMES: dict[str, tuple[Callable[..., Any], str, str, str]] = {
    "gptq": (lambda r, o, i: stored_packed.gptq(r, out=o, groups=i // 32), "scales", "scales", "qweight"),
    "awq": (lambda r, o, i: stored_packed.awq(r, out=o, groups=i // 32), "scales", "scales", "qweight"),
    "nf4": (
        lambda r, o, i: stored_packed.bnb_4bit(r, rows=o, columns=i, double=False),
        "weight.absmax", "weight.absmax", "weight",
    ),
    "nvfp4": (
        lambda r, o, i: stored_fp4.nvfp4(r, o, i // 16, "modelopt"), "weight_scale_2", "weight_scale", "weight"
    ),
    "fp8 in blocks": (stored_eight_bits.fp8_block, "weight_scale_inv", "weight_scale_inv", "weight"),
}  # fmt: skip


def models(scheme: str) -> tuple[Arrays, Arrays, Mapping[str, Any]]:
    """In codes, decoded in float32, and what the config says."""
    rng, codes, decoded, config = np.random.default_rng(9), {}, {}, {}
    for name, x in llama(5, layers=1, vocab=256).items():
        if "_proj" not in name:
            codes[name], decoded[name] = x.astype(BF16), x
            continue
        layer, module = SCHEMES[scheme][0](rng, *x.shape), name.removesuffix(".weight")
        own = layer.name.rpartition(".")[0]
        codes |= {t.replace(own, module): v for t, v in layer.tensors.items() if not t.endswith(".bias")}
        decoded[name], config = np.ascontiguousarray(layer.values.astype(np.float32)), dict(layer.config)
    return codes, decoded, config


def scaled(x: Array, factor: float) -> Array:
    return np.asarray((x.astype(np.float32) * np.float32(factor)).astype(x.dtype))


def one_block(x: Array, factor: float = 1.5) -> Array:
    changed = x.copy()
    values = x.reshape(-1).astype(np.float32)
    at = int(np.argmin(np.abs(values - np.median(values))))  # 1.5 times the largest may overflow
    changed.reshape(-1)[at] = scaled(x.reshape(-1)[at], factor)
    return changed


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scales_and_codes_that_were_changed(tmp_path: Path, scheme: str) -> None:
    _, whole, block, words = SCHEMES[scheme]
    codes, decoded, config = models(scheme)
    sound = folder(tmp_path / "sound", encode, codes, **config)
    others = {
        "F32": folder(tmp_path / "F32", encode, decoded),
        "BF16": folder(tmp_path / "BF16", encode, {n: x.astype(BF16) for n, x in decoded.items()}),
    }
    for other in others.values():
        assert weightprint.compare(other, sound).verdict == "re_encoded"
    attacks: dict[str, tuple[float | None, str, Array]] = {
        "factor": (1.7, whole, scaled(codes[f"{DOWN}.{whole}"], 1.7)),
        "nearly one": (1.001, whole, scaled(codes[f"{DOWN}.{whole}"], 1.001)),
        "block": (None, block, one_block(codes[f"{DOWN}.{block}"])),
        "codes": (None, words, np.roll(codes[f"{DOWN}.{words}"], 1, axis=0)),
    }
    for how, (factor, part, changed) in attacks.items():
        attacked = folder(tmp_path / how, encode, codes | {f"{DOWN}.{part}": changed}, **config)
        for against, other in {**others, "sound": sound}.items():
            pair = (other, attacked) if against != "BF16" else (attacked, other)
            found, diff = weightprint.compare(*pair), weightprint.diff(*pair)
            assert found.verdict in ("shared_origin", "partly_shared"), (how, against)
            rows = [row for row in diff.table.to_records() if row["status"] == "changed"]
            assert [row["name"] for row in rows] == [f"{DOWN}.weight"], (how, against)
            if factor is not None:
                way = factor if against != "BF16" else 1 / factor
                assert rows[0]["factor"] == pytest.approx(way, rel=1e-3 if how == "factor" else 3e-4), (how, against)
                assert "times" in found.result.sentence
