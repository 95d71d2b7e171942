"""Synthetic independent models for `calibrate`, many and fast, with the structure that makes real strangers look alike.

(`python -m benches.lineage strangers DIR`, for real models, is :mod:`..populations.real_strangers`.)

What every model has in common with every other: standard deviations that rise over depth, heavy tails, and the *kinds*
of structure that training leaves. What differs is what an initialisation decides: which directions, channels and units.

    row u of the up-projection of a block     s_u · (t(4)-noise + a few directions that the whole model shares + mean)
    column u of its down-projection           s_u · (noise + shared directions + 0.4 · the unit's own row)

so that units have hubs, strong units are strong on both ends, and a unit's input and output resemble each other. A few
residual channels are larger than the rest by 8 in every matrix of a model and carry larger gains. Biases, LayerNorm,
fused and transposed projections and experts come from the forms.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from .model_folder import Tensors, write_safetensors

F64 = NDArray[np.float64]

__all__ = ["FORMS", "write"]


@dataclass(frozen=True)
class Form:
    """Sizes of one architecture; ``names`` says whose tensor names it has."""

    names: str
    d: int
    h: int
    layers: int
    experts: int = 0


FORMS = {
    "llama": Form("llama", 48, 112, 3),
    "wide": Form("llama", 64, 96, 3),
    "qwen2": Form("qwen2", 48, 96, 4),
    "gpt2": Form("gpt2", 48, 128, 3),
    "mixtral": Form("mixtral", 48, 40, 3, experts=3),
}
_VOCABULARY = 160


class _Model:
    """One model's arbitrary choices, and matrices drawn under them."""

    def __init__(self, form: Form, rng: np.random.Generator) -> None:
        self.form, self.rng = form, rng
        self.outliers = rng.choice(form.d, 3, replace=False)
        self.shared = rng.standard_normal((4, form.d))  # directions that all blocks of this model use
        self.boost = np.ones(form.d)
        self.boost[self.outliers] = 8
        self.ramp = 1 + 0.05 * rng.standard_normal(form.layers)

    def rows(self, n: int, depth: int, strength: float = 0.7) -> F64:
        """(n, d): rows over residual channels."""
        x = self.rng.standard_t(4, (n, self.form.d))
        x += strength * self.rng.standard_normal((n, 4)) @ self.shared / 2
        x += 0.4 * np.abs(self.rng.standard_normal(self.form.d))
        out: F64 = self._scale(depth) * x * self.boost
        return out

    def ffn(self, units: int, depth: int, gated: bool) -> tuple[F64, F64, F64]:
        """up and gate (units, d), down (d, units)."""
        strong = np.exp(0.3 * self.rng.standard_normal(units))[:, None]
        up = strong * self.rows(units, depth)
        gate = strong * self.rows(units, depth) + 0.2 * up if gated else up
        down = strong * self.rows(units, depth) + 0.4 * up
        return up, gate, down.T

    def gains(self, depth: int) -> F64:
        x = 0.4 + (depth + 1) / self.form.layers + 0.1 * self.rng.standard_normal(self.form.d)
        x[self.outliers] *= 4
        return x

    def bias(self, n: int) -> F64:
        out: F64 = 0.1 * self.rng.standard_t(4, n)
        return out

    def _scale(self, depth: int) -> float:
        return 0.02 * float(1 + 2 * (depth + 1) / self.form.layers) * float(self.ramp[depth])


def _llama(m: _Model, biases: bool = False) -> dict[str, F64]:
    f = m.form
    out = {"model.embed_tokens.weight": m.rows(_VOCABULARY, 0)}
    for i in range(f.layers):
        at = f"model.layers.{i}."
        for part, n in (("q", f.d), ("k", f.d // 2), ("v", f.d // 2)):
            out[f"{at}self_attn.{part}_proj.weight"] = m.rows(n, i)
            if biases:
                out[f"{at}self_attn.{part}_proj.bias"] = m.bias(n)
        out[f"{at}self_attn.o_proj.weight"] = m.rows(f.d, i).T
        if f.experts:
            out[f"{at}block_sparse_moe.gate.weight"] = m.rows(f.experts, i)
            for e in range(f.experts):
                up, gate, down = m.ffn(f.h, i, True)
                names = (f"{at}block_sparse_moe.experts.{e}.w{k}.weight" for k in (3, 1, 2))
                out |= dict(zip(names, (up, gate, down), strict=True))
        else:
            up, gate, down = m.ffn(f.h, i, True)
            out |= {f"{at}mlp.{k}_proj.weight": x for k, x in (("up", up), ("gate", gate), ("down", down))}
        out[f"{at}input_layernorm.weight"] = m.gains(i)
        out[f"{at}post_attention_layernorm.weight"] = m.gains(i)
    out["model.norm.weight"] = m.gains(f.layers - 1)
    out["lm_head.weight"] = m.rows(_VOCABULARY, f.layers - 1)
    return out


def _gpt2(m: _Model) -> dict[str, F64]:
    """Conv1D: (in, out); q, k and v side by side."""
    f = m.form
    out = {"wte.weight": m.rows(_VOCABULARY, 0), "wpe.weight": m.rows(64, 0)}
    for i in range(f.layers):
        at = f"h.{i}."
        up, _, down = m.ffn(f.h, i, False)
        matrices = {
            "attn.c_attn": m.rows(3 * f.d, i).T, "attn.c_proj": m.rows(f.d, i), "mlp.c_fc": up.T, "mlp.c_proj": down.T,
        }  # fmt: skip
        for name, x in matrices.items():
            out[f"{at}{name}.weight"] = x
            out[f"{at}{name}.bias"] = m.bias(x.shape[1])
        for name in ("ln_1", "ln_2"):
            out[f"{at}{name}.weight"] = m.gains(i)
            out[f"{at}{name}.bias"] = m.bias(f.d)
    out["ln_f.weight"], out["ln_f.bias"] = m.gains(f.layers - 1), m.bias(f.d)
    return out


def _config(form: Form) -> dict[str, Any]:
    if form.names == "gpt2":
        return {"model_type": "gpt2", "n_embd": form.d, "n_layer": form.layers, "n_head": 4, "n_inner": form.h,
                "vocab_size": _VOCABULARY, "n_positions": 64}  # fmt: skip
    config = {
        "model_type": form.names, "hidden_size": form.d, "num_hidden_layers": form.layers, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": form.h, "vocab_size": _VOCABULARY,
        "tie_word_embeddings": False, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    }  # fmt: skip
    return config | ({"num_local_experts": form.experts, "num_experts_per_tok": 2} if form.experts else {})


def write(folder: Path, name: str, seed: int) -> Path:
    """Write the model of this form and seed unless it is there; the same bytes every time."""
    target = folder / f"{name}-{seed}"
    if (target / "model.safetensors").exists():
        return target
    model = _Model(FORMS[name], np.random.default_rng([seed, sorted(FORMS).index(name), 45]))
    names = model.form.names
    values = _gpt2(model) if names == "gpt2" else _llama(model, biases=names == "qwen2")
    tensors: Tensors = {key: np.ascontiguousarray(x).astype(ml_dtypes.bfloat16) for key, x in values.items()}
    part = target.with_suffix(".part")
    part.mkdir(parents=True, exist_ok=True)
    (part / "config.json").write_text(json.dumps(_config(model.form)) + "\n")
    write_safetensors(part / "model.safetensors", tensors)
    part.rename(target)
    return target
