"""Small checkpoints with a family's real names, fusions and shapes, and what they must come out as.

A miniature is written the way the family's modeling code reads it: canonical arrays are drawn first, then fused,
transposed or interleaved by reshape and concatenate, independently of the table of families:

    def phi3() -> Miniature:
        m = Maker("phi3", {"model_type": "phi3", "hidden_size": 24, …})
        m["model.embed_tokens.weight"] = m.draw("embedding", 50, 24)
        for b in range(2):
            q, k, v = (m.draw(role, rows, 24, block=b) for role, rows in (("q", 24), ("k", 12), ("v", 12)))
            m[f"model.layers.{b}.self_attn.qkv_proj.weight"] = np.concatenate([q, k, v])
        …
        return m.done()

A module of ``miniatures/`` ends in ``MINIATURES = [phi3, …]``; nothing else registers it.

The twin of a miniature holds its canonical arrays under Llama's names. Roles that Llama lacks are called by their own
name behind the same prefix: ``model.layers.3.attn_post_norm.weight``, ``model.token_type.weight``, an expert's
``model.layers.3.mlp.experts.5.up_proj.weight``, a shared one's ``model.layers.3.mlp.shared_expert.up_proj.weight``.
Stacks other than the decoder stand one level down: ``model.vision.layers.0.self_attn.q_proj.weight``. A bias ends in
``.bias`` in place of ``.weight``.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from weightprint.anatomy.family import Cell, Experts, Family, Stack
from weightprint.anatomy.place import Place, View
from weightprint.anatomy.roles import ROLES, SHARED

Array = npt.NDArray[np.float32]

#: Llama's names of the roles that Llama has.
LLAMA_BLOCK = {
    "attn_norm": "input_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
LLAMA_OUTSIDE = {"embedding": "embed_tokens", "final_norm": "norm", "head": "lm_head"}
FFN = ("gate", "up", "down")
STACKS = ("decoder", "encoder", "vision", "audio", "text", "mtp", "deepstack")


@dataclass
class Miniature:
    """One checkpoint: what is stored, and what it must come out as.

    Attributes:
        family: name of the row that must be chosen.
        tensors: stored arrays by their real names.
        config: what config.json holds.
        canonical: every canonical tensor, by place. A head that only repeats the embedding is not listed.
        fixed: names of stored tensors that the architecture sets.
        families: where several rows compose: stack → row; else `family` for all.
    """

    family: str
    tensors: dict[str, Array]
    config: dict[str, Any]
    canonical: dict[Place, Array]
    fixed: frozenset[str] = frozenset()
    families: Mapping[str, str] = field(default_factory=dict)
    label: str = ""

    @property
    def name(self) -> str:
        return self.label or self.family

    def write(self, folder: Path) -> Path:
        """Saves model.safetensors and config.json."""
        return _write(folder, self.tensors, self.config)

    def twin(self) -> dict[str, Array]:
        """The canonical arrays under Llama's names."""
        return {twin_name(place): array for place, array in self.canonical.items()}

    def write_twin(self, folder: Path) -> Path:
        """Saves the twin; its config says nothing, for nothing is left to split."""
        return _write(folder, self.twin(), {"model_type": "llama"})


def _write(folder: Path, tensors: Mapping[str, Array], config: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    safetensors.numpy.save_file(contiguous, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


class Maker:
    """Draws canonical arrays and collects what is stored."""

    def __init__(
        self,
        family: str,
        config: Mapping[str, Any],
        *,
        stack: str = "decoder",
        families: Mapping[str, str] | None = None,
        label: str = "",
    ) -> None:
        self.stack = stack
        self._rng = np.random.default_rng(sum(map(ord, family + label)))
        self._made = Miniature(family, {}, dict(config), {}, families=families or {}, label=label)
        self._fixed: set[str] = set()

    def draw(
        self,
        role: str,
        *shape: int,
        block: int | None = None,
        expert: int | str | None = None,
        stack: str | None = None,
    ) -> Array:
        """A new canonical array of a role (in canonical form: out x in), registered under its place."""
        place = Place(stack or self.stack, block, role, expert)
        assert place not in self._made.canonical, place
        array = self._rng.standard_normal(shape).astype(np.float32)
        self._made.canonical[place] = array
        return array

    def put(
        self,
        name: str,
        role: str,
        *shape: int,
        block: int | None = None,
        expert: int | str | None = None,
        stack: str | None = None,
        transposed: bool = False,
    ) -> Array:
        """Draws an array and stores it whole under `name` (transposed with `transposed`)."""
        array = self.draw(role, *shape, block=block, expert=expert, stack=stack)
        self[name] = array.T if transposed else array
        return array

    def fixed(self, name: str, *shape: int) -> None:
        """Stores a tensor that the architecture sets."""
        self[name] = self._rng.standard_normal(shape).astype(np.float32)
        self._fixed.add(name)

    def __setitem__(self, name: str, array: npt.NDArray[Any]) -> None:
        assert name not in self._made.tensors, name
        self._made.tensors[name] = array.astype(np.float32)

    def done(self) -> Miniature:
        self._made.fixed = frozenset(self._fixed)
        return self._made


def layer_norm(m: Maker, name: str, role: str, b: int | None = None, n: int = 24, stack: str | None = None) -> None:
    """A norm's gain and offset."""
    m.put(f"{name}.weight", role, n, block=b, stack=stack)
    m.put(f"{name}.bias", f"{role}_bias", n, block=b, stack=stack)


def linear(
    m: Maker, name: str, role: str, rows: int, columns: int, b: int | None = None, stack: str | None = None
) -> None:
    """A matrix and its bias."""
    m.put(f"{name}.weight", role, rows, columns, block=b, stack=stack)
    m.put(f"{name}.bias", f"{role}_bias", rows, block=b, stack=stack)


def read(tensors: Mapping[str, Array], view: View) -> Array:
    """A view's canonical tensor, from the meaning of View's fields alone."""
    array = tensors[view.weight]
    if view.index is not None:
        first = view.index * view.row_block
        array = array[first : first + view.row_block] if view.row_block else array[view.index]
    if view.transposed:
        array = array.T
    if view.rows is not None:
        r = view.rows
        chosen = [
            row
            for run in range(r.count)
            for row in range(r.start + run * r.stride, r.start + run * r.stride + r.length)
        ]
        if r.pairs:  # stored 0, hd/2, 1, hd/2 + 1, …: even rows of a head are its first half
            heads = [chosen[at : at + r.pairs] for at in range(0, len(chosen), r.pairs)]
            chosen = [row for head in heads for row in head[0::2] + head[1::2]]
        array = array[chosen]
    assert array.shape == view.shape, (view, array.shape)
    return array


def twin_name(place: Place) -> str:
    """A place's name in the twin."""
    role, end = place.role, ".weight"
    if role not in ROLES and role.endswith("_bias"):
        role, end = role[: -len("_bias")], ".bias"
    stack = "model." if place.stack == "decoder" else f"model.{place.stack}."
    if place.block is None:
        return f"{stack}{LLAMA_OUTSIDE.get(role, role)}{end}"
    within = LLAMA_BLOCK.get(role, role)
    if place.expert is not None:
        which = "shared_expert" if place.expert == SHARED else f"experts.{place.expert}"
        within = f"mlp.{which}.{within.removeprefix('mlp.')}"
    return f"{stack}layers.{place.block}.{within}{end}"


def _twin_family() -> Family:
    """The row that reads twins."""
    inside = {LLAMA_BLOCK.get(role, role): Cell((role,)) for role in ROLES}
    for role in ROLES:
        name = LLAMA_BLOCK.get(role, role).removeprefix("mlp.")
        inside[f"mlp.experts.{{e}}.{name}"] = Cell((role,))
        inside[f"mlp.shared_expert.{name}"] = Cell((role,), experts=Experts.SHARED)
    outside = {LLAMA_OUTSIDE.get(role, role): Cell((role,)) for role in ROLES}
    stacks = [
        Stack(name, "layers.{b}." if name == "decoder" else f"{name}.layers.{{b}}.", inside, here)
        for name in STACKS
        for here in ({(k if name == "decoder" else f"{name}.{k}"): role for k, role in outside.items()},)
    ]
    loose = [
        Stack(kind, "", {}, {f"{kind}.{name}": role for name, role in outside.items()}) for kind in ("text", "vision")
    ]
    return Family("twin", (*stacks, *loose))


TWIN = _twin_family()


def collect() -> list[Miniature]:
    """The miniatures of every module of ``miniatures/``."""
    made: list[Miniature] = []
    for path in sorted((Path(__file__).parent / "miniatures").glob("*.py")):
        makers: Sequence[Callable[[], Miniature]] = importlib.import_module(f"miniatures.{path.stem}").MINIATURES
        made += [maker() for maker in makers]
    return made
