"""Independent models whose layers all use a few strong directions of their *own* residual stream, as trained ones do.

    row of any matrix that reads the stream        noise + loads · directions + a mean that the model's rows share
    column of any matrix that writes to it         noise - (0.7 of what its unit reads + loads of its own) · directions

Loads are heavy-tailed, the directions' strengths fall as a power of their rank, and the directions turn a little from
one block to the next. Embeddings, the heads of attention and the FFN load on the same directions, and the gains of the
norms are larger where these lie. A rotation that lays B's directions on A's is then *real* on blocks that it was not
fitted on, although nothing is shared: what every null of a test in a fitted basis has to include.

Each model is drawn from its pair's number alone. Two models of a pair have one form and one kind of structure in most
pairs (there, most can be confused), and one width in half of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..zoo.model_folder import write_safetensors
from .case import STRANGERS, Case

F64 = NDArray[np.float64]
Tensors = dict[str, F64]

__all__ = ["cases", "write"]

_SEED = 1745
_POSITIONS = 64
_HEAD = 32
_WIDTHS = (64, 96, 128, 192)
_DIRECTIONS = (2, 3, 4, 6, 8, 12, 16, 24, 32)
_TAILS = (2.5, 3.0, 4.0, 6.0, math.inf)
_SAME_FORM, _SAME_STRUCTURE, _SAME_WIDTH, _HARDEST = 0.85, 0.6, 0.5, 0.3


@dataclass(frozen=True)
class Form:
    """One architecture's names. ``blocks``: name → the roles that it stacks along its rows."""

    blocks: Mapping[str, tuple[str, ...]]
    outer: Mapping[str, str]
    prefix: str
    config: Mapping[str, Any]
    sizes: tuple[str, str, str, str]  #: the config's words for width, units, blocks and heads
    gated: bool = False
    biases: bool = True
    conv1d: bool = False  #: matrices are stored (in, out)


_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")

FORMS = {
    "bert": Form(
        {
            "attention.self.query": ("q",),
            "attention.self.key": ("k",),
            "attention.self.value": ("v",),
            "attention.output.dense": ("o",),
            "attention.output.LayerNorm": ("norm1",),
            "intermediate.dense": ("up",),
            "output.dense": ("down",),
            "output.LayerNorm": ("norm2",),
        },
        {
            "embeddings.word_embeddings": "embedding",
            "embeddings.position_embeddings": "position",
            "embeddings.LayerNorm": "norm",
        },
        "encoder.layer.",
        {"model_type": "bert", "architectures": ["BertModel"]},
        _SIZES,
    ),
    "modernbert": Form(
        {
            "attn_norm": ("norm1",),
            "attn.Wqkv": ("q", "k", "v"),
            "attn.Wo": ("o",),
            "mlp_norm": ("norm2",),
            "mlp.Wi": ("gate", "up"),
            "mlp.Wo": ("down",),
        },
        {"embeddings.tok_embeddings": "embedding", "embeddings.norm": "first_norm", "final_norm": "norm"},
        "layers.",
        {"model_type": "modernbert", "architectures": ["ModernBertModel"]},
        _SIZES,
        gated=True,
        biases=False,
    ),
    "llama": Form(
        {
            "input_layernorm": ("norm1",),
            **{f"self_attn.{role}_proj": (role,) for role in "qkvo"},
            "post_attention_layernorm": ("norm2",),
            **{f"mlp.{role}_proj": (role,) for role in ("gate", "up", "down")},
        },
        {"model.embed_tokens": "embedding", "model.norm": "norm", "lm_head": "head"},
        "model.layers.",
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False},
        _SIZES,
        gated=True,
        biases=False,
    ),
    "gpt2": Form(
        {
            "ln_1": ("norm1",),
            "attn.c_attn": ("q", "k", "v"),
            "attn.c_proj": ("o",),
            "ln_2": ("norm2",),
            "mlp.c_fc": ("up",),
            "mlp.c_proj": ("down",),
        },
        {"wte": "embedding", "wpe": "position", "ln_f": "norm"},
        "h.",
        {"model_type": "gpt2", "architectures": ["GPT2Model"], "n_positions": _POSITIONS},
        ("n_embd", "n_inner", "n_layer", "n_head"),
        conv1d=True,
    ),
}


@dataclass(frozen=True)
class Structure:
    """What is drawn of a kind. Strengths are in standard deviations of the noise of one weight."""

    form: str
    width: int
    expansion: int
    blocks: int
    vocabulary: int
    directions: int
    tail: float  #: degrees of freedom of the loads' t distribution; inf is Gaussian
    strength: float  #: of a load on the strongest direction
    decay: float  #: the k-th direction's strength falls as k to this power
    drift: float  #: radians that the directions turn from one block to the next
    mean: float  #: of the row that all reading rows share
    gains: float  #: how much the norms' gains grow where the directions lie
    elsewhere: float  #: loads of attention and embeddings, as a share of the FFN's

    @property
    def units(self) -> int:
        """Of one block's FFN."""
        return self.expansion * self.width


def draw(rng: np.random.Generator, form: str) -> Structure:
    """A structure of this form."""
    width = int(rng.choice(_WIDTHS))
    return Structure(
        form,
        width,
        int(rng.choice((2, 3, 4))),
        int(rng.integers(3, 8)),
        int(rng.choice((200, 300, 400))),
        int(rng.choice(_DIRECTIONS)),
        float(rng.choice(_TAILS)),
        float(rng.uniform(1.5, 4)),
        float(rng.choice((0.0, 0.5, 1.0))),
        float(rng.choice((0.0, 0.03, 0.1))),
        float(rng.choice((0.0, 0.3))),
        float(rng.choice((0.0, 0.5))),
        float(rng.choice((0.0, 0.5, 1.0))),
    )


def cases(n: int) -> Iterator[Case]:
    """The first n pairs."""
    forms = sorted(FORMS)
    for i in range(n):
        rng = np.random.default_rng([_SEED, i])
        form = str(rng.choice(forms))
        a = draw(rng, form)
        b = draw(rng, form if rng.random() < _SAME_FORM else str(rng.choice(forms)))
        if rng.random() < _SAME_STRUCTURE:
            sizes = {key: getattr(b, key) for key in ("form", "width", "expansion", "blocks", "vocabulary")}
            b = replace(a, **sizes)
        if rng.random() < _HARDEST:  # directions that are equally strong and the same in all blocks, and wide FFNs
            even: dict[str, Any] = {
                "expansion": 4,
                "tail": min(a.tail, 4.0),
                "strength": max(a.strength, 3.0),
                "decay": 0.0,
                "drift": 0.0,
            }
            a, b = replace(a, **even), replace(b, **even)
        same = rng.random() < _SAME_WIDTH
        b = replace(b, width=a.width if same else int(rng.choice([w for w in _WIDTHS if w != a.width])))
        forms_of_pair = a.form if a.form == b.form else "two forms"
        group = f"{forms_of_pair}, {'one width' if a.width == b.width else 'two widths'}"
        yield Case(f"structured-{i}", partial(write, a, 2 * i), partial(write, b, 2 * i + 1), STRANGERS, group)


@dataclass
class _Model:
    """One model's arbitrary choices, and matrices drawn under them."""

    s: Structure
    rng: np.random.Generator
    basis: F64 = field(init=False)
    strengths: F64 = field(init=False)
    shared: F64 = field(init=False)

    def __post_init__(self) -> None:
        s = self.s
        self.basis = np.linalg.qr(self.rng.standard_normal((s.width, s.width)))[0]
        self.strengths = np.asarray(s.strength * np.arange(1, s.directions + 1) ** -s.decay, np.float64)
        self.shared = s.mean * self.rng.standard_normal(s.width)

    def directions(self, block: int) -> F64:
        """(directions, width), orthonormal: each turns towards a new one of its own."""
        k, angle = self.s.directions, self.s.drift * block
        found: F64 = math.cos(angle) * self.basis[:k] + math.sin(angle) * self.basis[k : 2 * k]
        return found

    def loads(self, n: int) -> F64:
        """(n, directions)."""
        size = (n, self.s.directions)
        drawn = self.rng.standard_normal(size) if math.isinf(self.s.tail) else self.rng.standard_t(self.s.tail, size)
        return drawn * self.strengths

    def rows(self, loads: F64, block: int) -> F64:
        """(n, width) that read the stream."""
        noise = self.rng.standard_normal((len(loads), self.s.width))
        return self._depth(block) * (noise + loads @ self.directions(block) + self.shared)

    def columns(self, read: F64, block: int) -> F64:
        """(width, n) that write against what is read."""
        own = 0.3 * self.rng.standard_normal(read.shape) * self.strengths
        noise = self.rng.standard_normal((len(read), self.s.width))
        found: F64 = self._depth(block) * (noise - (0.7 * read + own) @ self.directions(block)).T
        return found

    def heads(self) -> F64:
        """(width, directions): loads of attention's rows, each head with a strength of its own."""
        strong = np.repeat(np.exp(0.5 * self.rng.standard_normal(self.s.width // _HEAD)), _HEAD)
        return self.s.elsewhere * strong[:, None] * self.loads(self.s.width)

    def gain(self, block: int) -> F64:
        held = np.sqrt(self.s.width * np.square(self.strengths @ self.directions(block) / self.s.strength))
        found: F64 = 1 + 0.1 * self.rng.standard_normal(self.s.width) + self.s.gains * held
        return found

    def block(self, at: int, gated: bool) -> Tensors:
        """Every role of one block: matrices (out, in), gains of the norms."""
        attention, read = self.heads(), self.loads(self.s.units)
        strong = np.exp(0.3 * self.rng.standard_normal(self.s.units))[:, None]
        out = {
            role: self.rows(loads, at)
            for role, loads in zip("qkv", (self.heads(), self.heads(), attention), strict=True)
        }
        out |= {"o": self.columns(attention, at), "up": strong * self.rows(read, at)}
        if gated:
            out["gate"] = strong * self.rows(0.7 * read + 0.3 * self.loads(self.s.units), at)
        return out | {"down": self.columns(read, at) * strong.T, "norm1": self.gain(at), "norm2": self.gain(at)}

    def outer(self) -> Tensors:
        """Everything outside the blocks."""
        s, last = self.s, self.s.blocks - 1
        common = np.exp(-0.3 * np.log1p(np.arange(s.vocabulary)))[:, None]  # frequent tokens load more
        token = s.elsewhere * self.loads(s.vocabulary)
        return {
            "embedding": self.rows(common * token, 0),
            "position": 0.5 * self.rows(s.elsewhere * self.loads(_POSITIONS), 0),
            "head": self.rows(0.5 * token + s.elsewhere * self.loads(s.vocabulary), last),
            "first_norm": self.gain(0),
            "norm": self.gain(last),
        }

    def _depth(self, block: int) -> float:
        return 0.03 * (1 + block / self.s.blocks)


def tensors(s: Structure, rng: np.random.Generator) -> Tensors:
    """The whole model under its form's names."""
    form, model = FORMS[s.form], _Model(s, rng)

    def named(name: str, x: F64) -> Tensors:
        matrix = x.ndim == 2 and name not in form.outer
        out = {f"{name}.weight": x.T if matrix and form.conv1d else x}
        if form.biases and (matrix or x.ndim == 1):
            out[f"{name}.bias"] = 0.1 * rng.standard_normal(len(x))
        return out

    out: Tensors = {}
    outer = model.outer()
    for name, role in form.outer.items():
        out |= named(name, outer[role])
    for at in range(s.blocks):
        roles = model.block(at, form.gated)
        for name, stacked in form.blocks.items():
            out |= named(f"{form.prefix}{at}.{name}", np.concatenate([roles[role] for role in stacked]))
    return out


def write(s: Structure, seed: int, folder: Path) -> Path:
    """Write the model of this structure and seed; the same bytes every time."""
    found = tensors(s, np.random.default_rng([_SEED, 1, seed]))
    config = dict(zip(FORMS[s.form].sizes, (s.width, s.units, s.blocks, s.width // _HEAD), strict=True))
    config |= {"vocab_size": s.vocabulary, **FORMS[s.form].config}
    folder.mkdir(parents=True)
    write_safetensors(folder / "model.safetensors", {k: np.ascontiguousarray(x, np.float32) for k, x in found.items()})
    (folder / "config.json").write_text(json.dumps(config) + "\n")
    return folder
