"""A parent opened for an operation, and the wrapper that turns a small function into an `Operation` with its truth.

An operation is written as `def name(work: Work, **parameters) -> None`: it replaces entries of `work.tensors` (never
writes into an array: parents share them), and notes what only it knows with `work.note`, `work.units`, `work.layers`
and `work.experts`. The wrapper opens the parents, closes the child and extends the truth.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..model_folder import Tensors, Truth, ZooModel
from . import spelling as _spelling
from .spelling import EMBEDDING, HEAD, NORM, POSITIONS, axes_of, ffn_of, layer_of

Array = NDArray[Any]
Index = NDArray[np.int64]

GATED = ("llama", "qwen2", "gemma", "moe")
DENSE = ("llama", "qwen2", "gemma", "gpt2")
ALL = (*GATED, "gpt2")

#: our word → the words of config.json, the usual one first.
_KEYS = {
    "hidden": ("hidden_size", "n_embd"),
    "layers": ("num_hidden_layers", "n_layer"),
    "heads": ("num_attention_heads", "n_head"),
    "kv_heads": ("num_key_value_heads", "n_head_kv"),
    "ffn": ("intermediate_size", "n_inner"),
    "vocabulary": ("vocab_size",),
    "experts": ("n_routed_experts", "num_experts", "num_local_experts"),
    "used": ("num_experts_per_tok",),
    "expert_ffn": ("moe_intermediate_size",),
}


@dataclass
class Work:
    """A model in hand. `tensors` is in Llama's spelling, float32, matrices (out, in)."""

    tensors: Tensors
    config: dict[str, Any]
    form: str
    rng: np.random.Generator
    name: str = ""
    others: Sequence[Work] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    #: FFN or expert prefix in the child → the parent's unit of each unit, -1 for a new one; None for all in order.
    units: dict[str, Index | None] = field(default_factory=dict)
    #: expert prefix in the child → (parent's layer, parent's expert or None if that was dense).
    experts: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    #: rows of the expert map of a dense child of a MoE parent.
    gathered: list[list[Any]] = field(default_factory=list)
    layer_map: list[list[int | None]] | None = None
    #: filled by operations whose result is no longer in Llama's spelling (encodings).
    closed: Tensors | None = None
    #: tensors beside the model's own, under names of their own; before them in the file if `added_first`.
    added: Tensors = field(default_factory=dict)
    added_first: bool = False

    def get(self, key: str) -> Any:
        """A number from config.json, None if it isn't there."""
        return next((self.config[word] for word in _KEYS[key] if self.config.get(word) is not None), None)

    def set(self, key: str, value: int) -> None:
        """Write a number into config.json under the word that is there, else under the usual one."""
        self.config[next((word for word in _KEYS[key] if word in self.config), _KEYS[key][0])] = value

    def note(self, **parameters: Any) -> None:
        """Record parameters beside those of the call (drawn numbers, kept indices)."""
        self.parameters |= {key: plain(value) for key, value in parameters.items()}

    @property
    def hidden(self) -> int:
        return int(self.tensors[f"{EMBEDDING}.weight"].shape[1])

    @property
    def vocabulary(self) -> int:
        return int(self.tensors[f"{EMBEDDING}.weight"].shape[0])

    @property
    def depth(self) -> int:
        return 1 + max(layer for layer in map(layer_of, self.tensors) if layer is not None)

    @property
    def heads(self) -> int:
        return int(self.get("heads"))

    @property
    def kv_heads(self) -> int:
        return int(self.get("kv_heads") or self.heads)

    @property
    def head_dim(self) -> int:
        """Width of a head: rows of q over heads (not d / heads once channels were cut)."""
        return int(self.tensors["model.layers.0.self_attn.q_proj.weight"].shape[0]) // self.heads

    @property
    def tied(self) -> bool:
        return f"{HEAD}.weight" not in self.tensors

    @property
    def rope(self) -> bool:
        return f"{POSITIONS}.weight" not in self.tensors

    @property
    def layernorm(self) -> bool:
        """Whether norms subtract the mean: then channels may be permuted, but neither flipped nor freely rotated."""
        return self.config.get("model_type") == "gpt2" and self.config.get("normalization") != "rmsnorm"

    @property
    def offset(self) -> float:
        """What is added to a stored gain before it acts: 1 in Gemma."""
        return 1.0 if str(self.config.get("model_type", "")).startswith("gemma") else 0.0

    def ffns(self, layer: int | None = None) -> list[str]:
        """Prefixes of the FFNs and experts, of one block or of all."""
        found = (ffn_of(name) for name in self.tensors if name.endswith("down_proj.weight"))
        return [f for f in found if f is not None and (layer is None or layer_of(f + ".") == layer)]

    def width(self, ffn: str) -> int:
        """Hidden units of an FFN."""
        return int(self.tensors[f"{ffn}.up_proj.weight"].shape[0])

    def gated(self, ffn: str) -> bool:
        return f"{ffn}.gate_proj.weight" in self.tensors

    def norms(self) -> dict[str, list[str]]:
        """Norm module → the weights that read its output (the tied embedding is no reader: it can't be rescaled)."""
        out: dict[str, list[str]] = {}
        for i in range(self.depth):
            at = f"model.layers.{i}"
            out[f"{at}.input_layernorm"] = [f"{at}.self_attn.{part}_proj.weight" for part in "qkv"]
            reads = [f"{at}.mlp.gate.weight"]
            reads += [f"{ffn}.{part}_proj.weight" for ffn in self.ffns(i) for part in ("gate", "up")]
            out[f"{at}.post_attention_layernorm"] = [name for name in reads if name in self.tensors]
        out[NORM] = [] if self.tied else [f"{HEAD}.weight"]
        return out

    def gain(self, norm: str) -> Array:
        """The gain as it acts, float64."""
        return self.tensors[f"{norm}.weight"].astype(np.float64) + self.offset

    def set_gain(self, norm: str, gain: Array) -> None:
        self.tensors[f"{norm}.weight"] = (gain - self.offset).astype(np.float32)

    def untie(self) -> None:
        """Give the head its own copy of the embedding."""
        if self.tied:
            self.tensors[f"{HEAD}.weight"] = self.tensors[f"{EMBEDDING}.weight"]
            self.config["tie_word_embeddings"] = False

    def matrices(self, embeddings: bool = False) -> list[str]:
        """Names of all matrices; embedding, positions and head only if asked for."""
        return [n for n, x in self.tensors.items() if x.ndim == 2 and (embeddings or layer_of(n) is not None)]

    def along(self, axis: str, change: Callable[[Array, int], Array], under: str = "") -> None:
        """Replace every tensor that has the axis (and the prefix) by `change(tensor, number of the axis)`."""
        for name, x in self.tensors.items():
            if name.startswith(under and under + ".") and axis in (axes := axes_of(name)):
                self.tensors[name] = np.ascontiguousarray(change(x, axes.index(axis)))

    def take(self, axis: str, index: Index, under: str = "") -> None:
        """Select along an axis of every tensor under a prefix that has it."""
        self.along(axis, lambda x, at: np.take(x, index, axis=at), under)

    def scale(self, axis: str, factor: Array, under: str = "") -> None:
        """Multiply along an axis of every tensor under a prefix that has it."""

        def change(x: Array, at: int) -> Array:
            return (x * (factor if at == x.ndim - 1 else factor[:, None])).astype(np.float32)

        self.along(axis, change, under)

    def pad(self, axis: str, new: int, fill: Callable[[str, tuple[int, ...], Array], Array], under: str = "") -> None:
        """Append `new` entries along an axis; `fill(name, shape, old tensor)` makes them."""
        for name, x in list(self.tensors.items()):
            if not name.startswith(under and under + ".") or axis not in (axes := axes_of(name)):
                continue
            at = axes.index(axis)
            shape = (*x.shape[:at], new, *x.shape[at + 1 :])
            self.tensors[name] = np.concatenate([x, fill(name, shape, x).astype(np.float32)], axis=at)

    def relayer(self, sources: Sequence[int | None]) -> None:
        """Stack blocks anew: block i becomes a copy of block sources[i]; None leaves a hole for the caller to fill."""
        old = dict(self.tensors)
        self.tensors = {name: x for name, x in old.items() if layer_of(name) is None}
        for i, source in enumerate(sources):
            at = f"model.layers.{source}."
            for name, x in old.items():
                if source is not None and name.startswith(at):
                    self.tensors[f"model.layers.{i}.{name.removeprefix(at)}"] = x
        self.set("layers", len(sources))
        self.layer_map = [[i, source] for i, source in enumerate(sources)]


class Function(Protocol):
    """Parents, a seed and parameters → the child."""

    def __call__(self, parents: Sequence[ZooModel], seed: int, **parameters: Any) -> ZooModel: ...


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        name: as in METHODS.md section 5, snake_case; the name that goes into the truth.
        forms: the forms of the first parent that it works on.
        parents: how many it takes at least.
        preserves: whether the child computes the same function (under parameters named in `strengths`).
        strengths: up to three sets of parameters, weak to strong; the first is the default.
        function: the operation itself.
    """

    name: str
    forms: tuple[str, ...]
    parents: int
    preserves: bool
    strengths: tuple[Mapping[str, Any], ...]
    function: Function

    def __call__(self, parents: Sequence[ZooModel], seed: int, **parameters: Any) -> ZooModel:
        """Apply it. The child is called PARENT.OPERATION until somebody names it.

        Raises:
            ValueError: a form, number of parents or parameter that does not fit.
        """
        return self.function(parents, seed, **parameters)


def operation(
    *,
    forms: tuple[str, ...] = ALL,
    takes: int = 1,
    preserves: bool = False,
    strengths: Sequence[Mapping[str, Any]] = ({},),
) -> Callable[[Callable[..., None]], Operation]:
    """Make an `Operation` of a function on `Work`; its name is the function's."""

    def wrap(core: Callable[..., None]) -> Operation:
        name = core.__name__
        signature = inspect.signature(core)

        def function(parents: Sequence[ZooModel], seed: int, **given: Any) -> ZooModel:
            if len(parents) < takes:
                raise ValueError(f"{name} needs {takes} parents")
            if parents[0].truth.form not in forms:
                raise ValueError(f"{name} is not made for {parents[0].truth.form}, only for {', '.join(forms)}")
            rng = np.random.default_rng([seed, *name.encode()])
            opened = [open_model(m, rng) for m in parents]
            work = opened[0]
            work.others = opened[1:]
            bound = signature.bind(work, **given)
            bound.apply_defaults()
            work.parameters = {"seed": seed} | {k: plain(v) for k, v in list(bound.arguments.items())[1:]}
            core(*bound.args, **bound.kwargs)
            return close(work, parents, name)

        return Operation(name, forms, takes, preserves, tuple(strengths), function)

    return wrap


def open_model(made: ZooModel, rng: np.random.Generator) -> Work:
    """A made model in Llama's spelling."""
    return Work(_spelling.spell(made.tensors), dict(made.config), made.truth.form, rng, made.truth.name)


def close(work: Work, parents: Sequence[ZooModel], name: str) -> ZooModel:
    """The child in the spelling of its first parent, with its truth."""
    tensors = work.closed if work.closed is not None else _spelling.unspell(work.tensors, parents[0].tensors)
    tensors = {**work.added, **tensors} if work.added_first else {**tensors, **work.added}
    first = parents[0].truth
    truth = Truth(
        name=f"{first.name}.{name}",
        kind="descendant",
        form=work.form,
        roots=tuple(dict.fromkeys(root for parent in parents for root in parent.truth.roots)),
        parents=tuple(parent.truth.name for parent in parents),
        operations=({"name": name, "parameters": work.parameters},),
        layer_map={first.name: work.layer_map} if work.layer_map is not None else {},
        expert_map=_expert_map(work),
        unit_map={
            str(layer_of(ffn + ".")): plain(units)
            for ffn, units in work.units.items()
            if ffn.endswith(".mlp") and units is not None
        },
        total_tokens=first.total_tokens,
    )
    return ZooModel(tensors, work.config, truth)


def _expert_map(work: Work) -> list[list[Any]]:
    """[layer here, expert here, parent's layer, units there or None, parent's expert or None], by layer and expert."""
    rows: list[list[Any]] = list(work.gathered)
    for ffn in dict.fromkeys([*work.experts, *work.units]):
        if ffn.endswith(".mlp"):
            continue
        layer, expert = layer_of(ffn + "."), int(ffn.rpartition(".")[2])
        units = work.units.get(ffn)
        source = work.experts.get(ffn, (layer, expert))
        rows.append([layer, expert, source[0], None if units is None else plain(units), source[1]])
    return rows


def named(made: ZooModel, name: str) -> ZooModel:
    """The same model under another name."""
    return replace(made, truth=replace(made.truth, name=name))


def plain(value: Any) -> Any:
    """For JSON: numpy's numbers and arrays as Python's, tuples as lists."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def partly_shuffled(rng: np.random.Generator, n: int, share: float) -> Index:
    """A permutation of n that moves a share of the places, at least two, all of them in one random cycle."""
    order = np.arange(n)
    if n > 1 and share > 0:
        cycle = rng.choice(n, min(n, max(2, round(share * n))), replace=False)
        order[cycle] = np.roll(cycle, 1)
    return order
