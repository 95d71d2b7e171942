"""The sizes of a stack: hidden width, heads, head size, FFN, experts.

Shapes are evidence, config.json is context: a value of the config is used where the shapes agree with it, and dropped
with a note where they do not. From shapes alone

* hidden is what most tensors that read or write the residual stream have on that axis;
* the rows of q are the columns of o (per-head outputs), so a fused q|k|v of n rows has (n - q) / 2 rows of k;
* the head size comes from q/k norms of one head, from rope.freqs (one per pair), or from MLA's latents:
  rope = rows(kv_a) - latent, H·nope = rows(kv_b) - columns(o), H·rope = rows(q_b) - H·nope.

What neither says stays None. Config files name the same thing in many ways, and multimodal ones nest a model's sizes
in a config of its own: :data:`CONFIG_KEYS` and :func:`configs`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from weightprint.anatomy.place import Geometry
from weightprint.anatomy.roles import matrix_of, role_of

#: field of Geometry → the keys under which config files hold it, most specific first.
CONFIG_KEYS: dict[str, tuple[str, ...]] = {
    "hidden": ("hidden_size", "d_model", "n_embd", "n_embed", "dim", "model_dim", "width", "embed_dim"),
    "heads": ("num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads", "heads"),
    "kv_heads": (
        "num_key_value_heads", "num_kv_heads", "n_kv_heads", "kv_n_heads", "n_head_kv", "multi_query_group_num",
    ),
    "head_dim": ("head_dim", "kv_channels", "d_kv", "attention_head_dim", "head_size", "hidden_size_per_head"),
    "ffn": ("intermediate_size", "ffn_dim", "d_ff", "ffn_hidden_size", "n_inner", "mlp_hidden_size", "hidden_dim"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts"),
    "value_dim": ("v_head_dim",),
    "nope_dim": ("qk_nope_head_dim",),
    "rope_dim": ("qk_rope_head_dim",),
    "blocks": ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "depth"),
}  # fmt: skip
#: The same of how many routed experts a token uses, which no tensor says.
_ACTIVE = (
    "num_experts_per_tok", "num_experts_per_token", "num_selected_experts", "moe_top_k", "moe_topk", "moe_k",
    "top_k_experts", "num_active_experts",
)  # fmt: skip
#: stack → keys of the nested configs that describe it, and prefixes that encoder-decoder configs put before a key.
_NESTED = {
    "decoder": ("text_config", "llm_config", "language_config", "thinker_config", "decoder"),
    "text": ("text_config", "text_config_dict"),
    "vision": ("vision_config", "vision_tower_config", "vision_encoder"),
    "audio": ("audio_config", "speech_config", "audio_encoder"),
    "encoder": ("encoder", "text_config"),
}
_PARTS = ("attn_config", "ffn_config", "moe_config")


@dataclass(frozen=True, slots=True)
class TensorKind:
    """One kind of tensor of a stack: `count` tensors of this role and canonical shape. ``roles``: more if fused."""

    roles: tuple[str, ...]
    shape: tuple[int, ...]
    count: int = 1
    experts: int | None = None


@dataclass(slots=True)
class Sizes:
    """What splitting needs: the geometry, rows of all queries, and what was noticed on the way."""

    geometry: Geometry
    q_rows: int | None = None
    notes: list[str] = field(default_factory=list)


def model_types(config: Mapping[str, Any]) -> frozenset[str]:
    """Every ``model_type`` in the config and the configs nested in it."""
    own = config.get("model_type")
    nested = (model_types(value) for value in config.values() if isinstance(value, Mapping))
    return frozenset({own} if isinstance(own, str) else ()).union(*nested)


def configs(config: Mapping[str, Any], stack: str) -> list[Mapping[str, Any]]:
    """The configs that may describe a stack, best first; each with its attention and FFN parts laid flat."""
    kind = stack.split(":")[0]
    found: list[Mapping[str, Any]] = []
    for key in _NESTED.get(kind, ()):
        if isinstance(nested := config.get(key), Mapping):
            found += configs(nested, stack)
    flat = dict(config)
    for part in _PARTS:
        if isinstance(nested := config.get(part), Mapping):
            flat = {**nested, **flat}
    for prefix in (f"{kind}_", f"num_{kind}_"):
        for key, value in config.items():
            if key.startswith(prefix):
                flat[key.replace(f"{kind}_", "", 1)] = value
    return [*found, flat]


def _first(config: Mapping[str, Any], keys: Iterable[str]) -> int | None:
    """The first whole number above 0 under one of these keys."""
    values = (config.get(key) for key in keys)
    return next((v for v in values if isinstance(v, int) and not isinstance(v, bool) and v > 0), None)


def _whole(config: Mapping[str, Any], name: str) -> int | None:
    return _first(config, CONFIG_KEYS[name])


def expert_count(stack: str, routers: list[int], config: Mapping[str, Any]) -> int | None:
    """How many experts the routers choose among, else how many the config names."""
    if routers:
        return max(routers)
    return next((n for c in configs(config, stack) if (n := _whole(c, "experts")) is not None), None)


def active_experts(config: Mapping[str, Any], stack: str) -> int | None:
    """How many routed experts a token uses, as the config says."""
    return next((n for c in configs(config, stack) if (n := _first(c, _ACTIVE)) is not None), None)


def _common(votes: Iterable[tuple[int, int]]) -> int | None:
    """The value with most votes, of (value, votes)."""
    counted: Counter[int] = Counter()
    for value, n in votes:
        counted[value] += n
    return max(counted, key=lambda value: counted[value], default=None)


def _hidden_votes(seen: Iterable[TensorKind]) -> Iterable[tuple[int, int]]:
    for s in seen:
        role = role_of(s.roles[0])
        if role.axis == "channels" and len(s.shape) == 1:
            yield s.shape[0], s.count
        elif role.axis == "reads" and len(s.shape) == 2 and matrix_of(s.roles[0]) == s.roles[0]:
            yield s.shape[1], s.count
        elif role.axis == "writes" and len(s.shape) == 2 and len(s.roles) == 1:
            yield s.shape[0], s.count


def _lengths(seen: Iterable[TensorKind], role: str, axis: int) -> int | None:
    """The most common length along an axis, of tensors that hold this role alone."""
    return _common((s.shape[axis], s.count) for s in seen if s.roles == (role,) and len(s.shape) > axis)


def measure(
    stack: str, blocks: int, seen: list[TensorKind], outside: list[TensorKind], config: Mapping[str, Any]
) -> Sizes:
    """The sizes of a stack, from what was seen inside and outside its blocks and from config.json."""
    notes: list[str] = []
    hidden = _common(_hidden_votes(seen)) or _common(_hidden_votes(outside))
    here = _config_that_fits(stack, hidden, config, notes)
    hidden = hidden or _whole(here, "hidden")
    told = _whole(here, "blocks")
    if told not in (None, blocks) and stack in _NESTED:
        notes.append(f"{stack}: config.json says {told} blocks, {blocks} are here")
    dense = [s for s in seen if s.experts is None]
    experts = max((s.experts for s in seen if s.experts and role_of(s.roles[0]).part == "ffn"), default=None)
    geometry = Geometry(
        blocks=blocks,
        hidden=hidden,
        ffn=_lengths(dense, "up", 0) or _lengths(seen, "up", 0) or _whole(here, "ffn"),
        experts=experts or _lengths(seen, "router", 0),
        vocabulary=_lengths(outside, "embedding", 0) or _lengths(outside, "head", 0),
    )
    attend = _latent_attention if any("kv_b" in s.roles for s in seen) else _attention
    return attend(stack, geometry, seen, outside, here, notes)


def _config_that_fits(stack: str, hidden: int | None, config: Mapping[str, Any], notes: list[str]) -> Mapping[str, Any]:
    """The config that describes a stack of this hidden size; empty, with a note, if each says another size."""
    said = [c for c in configs(config, stack) if _whole(c, "hidden") is not None]
    fitting = [c for c in said if hidden is None or _whole(c, "hidden") == hidden]
    if said and not fitting:
        notes.append(f"{stack}: config.json says hidden size {_whole(said[0], 'hidden')}, the tensors say {hidden}")
    return fitting[0] if fitting else {}


def _latent_attention(
    stack: str,
    geometry: Geometry,
    seen: list[TensorKind],
    _: list[TensorKind],
    here: Mapping[str, Any],
    notes: list[str],
) -> Sizes:
    """MLA: the latents' shapes tell heads and the three head sizes; the config only where a shape is missing."""
    heads = _whole(here, "heads")
    value, nope, rope = (_whole(here, key) for key in ("value_dim", "nope_dim", "rope_dim"))
    values = _lengths(seen, "o", 1)
    latent, kv_a, kv_b = _lengths(seen, "kv_a_norm", 0), _lengths(seen, "kv_a", 0), _lengths(seen, "kv_b", 0)
    queries = _lengths(seen, "q_b", 0) or _lengths(seen, "q", 0)
    if values and latent and kv_a and kv_b and queries and kv_a > latent:
        rope_one, nopes = kv_a - latent, kv_b - values
        count, left = divmod(queries - nopes, rope_one)
        if count > 0 and not left and nopes % count == 0 and values % count == 0:
            if heads not in (None, count):
                notes.append(f"{stack}: config.json says {heads} heads, the tensors say {count}")
            heads, value, nope, rope = count, values // count, nopes // count, rope_one
    size = nope + rope if nope and rope else None
    made = replace(geometry, heads=heads, kv_heads=heads, head_dim=size, value_dim=value, nope_dim=nope, rope_dim=rope)
    return Sizes(made, values, notes)


def _attention(
    stack: str,
    geometry: Geometry,
    seen: list[TensorKind],
    outside: list[TensorKind],
    here: Mapping[str, Any],
    notes: list[str],
) -> Sizes:
    """Rows of all queries from shapes; heads and head size from the config where they agree."""
    guessed: tuple[str, ...] = ()
    fused = next((s.shape[0] for s in seen if set(s.roles) == {"q", "k", "v"} and len(s.shape) == 2), None)
    q_rows = _lengths(seen, "o", 1) or _lengths(seen, "q", 0)
    heads, size, kv_heads = (_whole(here, key) for key in ("heads", "head_dim", "kv_heads"))
    if q_rows is None:
        if heads and size:
            q_rows = heads * size
        elif fused is not None and geometry.hidden is not None and fused == 3 * geometry.hidden:
            q_rows = geometry.hidden
    kv_rows = _lengths(seen, "k", 0)
    if fused and q_rows and fused > q_rows and (fused - q_rows) % 2 == 0:
        kv_rows = (fused - q_rows) // 2

    # What single tensors say of heads.
    norm = next((s.shape for s in seen if s.roles == ("q_norm",)), ())
    if len(norm) == 2:
        heads, size = norm
    heads = _lengths(seen, "sinks", 0) or heads
    if heads and q_rows:
        if heads * (size or 0) != q_rows and q_rows % heads:
            notes.append(f"{stack}: config.json says {heads} heads, the tensors have {q_rows} rows of queries")
            heads = size = None
        elif size is not None and heads * size != q_rows:
            notes.append(f"{stack}: config.json says heads of {size}, the tensors say {q_rows // heads}")
            size = q_rows // heads
        else:
            size = q_rows // heads
    if size is None and len(norm) == 1 and q_rows and norm[0] < q_rows and q_rows % norm[0] == 0:
        size = norm[0]
    if size is None:
        rotary = _lengths([*seen, *outside], "fixed", 0)
        if rotary and q_rows and q_rows % (2 * rotary) == 0:
            size, guessed = 2 * rotary, ("head_dim", "heads")
    if size and q_rows and heads is None and q_rows % size == 0:
        heads = q_rows // size
    if kv_rows and size and kv_rows % size == 0:
        if kv_heads not in (None, kv_rows // size):
            notes.append(f"{stack}: config.json says {kv_heads} key-value heads, the tensors say {kv_rows // size}")
        kv_heads = kv_rows // size
    elif kv_rows is None:
        kv_heads = kv_heads or (1 if here.get("multi_query") is True else heads)
    made = replace(geometry, heads=heads, kv_heads=kv_heads, head_dim=size, guessed=guessed)
    return Sizes(made, q_rows, notes)
