"""What was done, in plain words: one sentence for each operation, numbers per layer left to whoever asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from weightprint.operations.base import Operation
from weightprint.report.format import percent
from weightprint.util.ranges import joined

__all__ = ["sentence"]


def sentence(operation: Operation) -> str:
    """``"likely (.8): trained further, or merged with a sibling: weights moved 8.3 %"``; not escaped.

    An operation that is not known here, or not with such parameters, is told by its name and where it was seen."""
    try:
        words = _SAYS[operation.name](operation.parameters)
    except KeyError:
        words = f"{operation.name.replace('_', ' ')}: {operation.where}"
    return _doubt(operation.confidence) + words


def _doubt(confidence: float) -> str:
    if confidence >= 0.9:
        return ""
    return f"{'likely' if confidence >= 0.7 else 'perhaps'} ({f'{confidence:.2g}'.lstrip('0')}): "


Parameters = Mapping[str, Any]


def _some(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def _span(values: Sequence[float]) -> str:
    low, high = (percent(x) for x in (min(values), max(values)))
    return low if low == high else f"{low.removesuffix(' %')} to {high}"


def _trained(how: str) -> Callable[[Parameters], str]:
    def says(p: Parameters) -> str:
        layers = [change for _, change in p.get("layers", ())]
        parts = [f"layers {_span(layers)}"] if layers else []
        parts += [
            f"{role.replace('_', ' ')} {percent(x)}" for role, x in p.get("outside", {}).items() if "norm" not in role
        ]
        frozen = p.get("frozen", ())
        left = f"; {_some(len(frozen), 'tensor')} untouched" if frozen else ""
        where = f" ({', '.join(parts)}{left})" if parts or left else ""
        return f"{how}, or merged with a sibling: weights moved {percent(p['relative_change'])}{where}"

    return says


def _quantised(p: Parameters) -> str:
    scheme = next((p[key] for key in ("scheme", "method") if p.get(key)), "")
    bits = f"to {p['bits']} bits" if p.get("bits") else "to codes"
    group = f", groups of {p['group']}" if p.get("group") else ""
    error = f"; that moved weights by {percent(p['error'])}" if p.get("error") else ""
    return f"quantised {bits} ({scheme}{group}){error}"


def _scaled(p: Parameters) -> str:
    if "per" in p:
        size = f"{p['from']:g} to {p['to']:g}"
        return f"{_some(p['tensors'], 'tensor')}: each {p['per']} multiplied by its own factor, {size}, stored nowhere"
    if "factor" not in p:
        return f"{_some(p['tensors'], 'tensor')} stored as codes whose scale is kept nowhere"
    size = f"{p['from']:g} to {p['to']:g}" if "from" in p else f"{p['factor']:g}"
    return f"{_some(p['tensors'], 'tensor')} multiplied by {size}, a factor that nothing stores"


def _stacked(p: Parameters) -> str:
    ranges = [f"{a}" if a == b else f"{a}-{b}" for a, b in p["ranges"]]
    return f"layers repeated: {', '.join(ranges)} one after the other make {sum(b - a + 1 for a, b in p['ranges'])}"


def _inserted(p: Parameters) -> str:
    made = "copies of their neighbours" if p.get("copy") else "not the other model's"
    silent = ", with outputs of zero" if p.get("zero_output") else ""
    return f"{_some(p['count'], 'layer')} inserted at {', '.join(joined(p['at'], limit=6))}: {made}{silent}"


def _upcycled(p: Parameters) -> str:
    n = p["experts"]
    which = f"{p['copied']} of {n:,} experts are copies" if "copied" in p else f"{n:,} experts, copies"
    fresh = f", {percent(p['fresh'])} of their units made anew" if p.get("fresh") else ""
    return f"made a mixture of experts: {which} of the layer's feed-forward part{fresh}"


def _split(p: Parameters) -> str:
    times = f", each {p['copies']} times" if p.get("copies", 1) > 1 else ""
    return f"made a mixture of experts: each feed-forward part cut into {p['parts']}{times}"


def _repeated(p: Parameters) -> str:
    if "times" not in p:
        return f"experts added: {p['experts_of_a']} -> {p['experts']}, some of them copies"
    noise = f", with noise of {percent(p['noise'])}" if p.get("noise") else ""
    return f"every expert put in {p['times']} times{noise}"


def _dense(p: Parameters) -> str:
    ways = {"one": "one expert of each layer kept", "mean": "experts averaged", "concatenation": "experts side by side"}
    return f"experts made one feed-forward part: {ways.get(p.get('method', ''), 'experts brought together')}"


def _wider(p: Parameters) -> str:
    new = {"zero": "write nothing", "copied": "are copies"}.get(p["new"], "are made anew")
    return f"feed-forward units {p['units_of_a']:,} -> {p['units']:,}, new ones {new}"


def _extended(p: Parameters) -> str:
    new = {"mean": ", new rows about the mean", "random": ", new rows drawn at random"}.get(p.get("new", ""), "")
    return f"vocabulary grown to {p['size']:,} tokens{new}"


def _swapped(p: Parameters) -> str:
    kept = f", {percent(p['kept'])} of the rows kept under other numbers" if "kept" in p else ""
    return f"vocabulary replaced: {p['size']:,} tokens{kept}"


def _noise(p: Parameters) -> str:
    if "sd" in p:
        return f"random noise added, standard deviation {p['sd']:.3g}"
    if "relative" in p:
        return f"random noise added, {percent(p['relative'])} of the spread of each tensor"
    return f"random noise added, standard deviation {p['sd_from']:.3g} to {p['sd_to']:.3g}"


def _zeroed(p: Parameters) -> str:
    return f"pruned: {percent(p['fraction'])} of the weights set to zero"


def _ablated(p: Parameters) -> str:
    what = "one direction" if 2 * p["sharing"] > p["matrices"] else "directions"
    strength = "" if p["strength"] >= 0.995 and "strengths" not in p else f", by {percent(p['strength'])}"
    scaled = ", and rows were scaled" if p["rescaled"] else ""
    layers = f" (layers {', '.join(joined(p['layers'], limit=6))})" if p["layers"] else ""
    return f"{what} taken out of what writes to the stream{strength}{scaled}{layers}"


def _factorised(p: Parameters) -> str:
    ranks = ", ".join(f"{role} {f'{r[0]} to {r[1]}' if isinstance(r, list) else r}" for role, r in p["ranks"].items())
    energy = _span([*p["energy"].values()])
    return f"matrices cut to a low rank ({ranks}), {energy} of their sums of squares kept"


def _turned(p: Parameters) -> str:
    return f"{p['side']} of {', '.join(p['roles'])} turned in blocks of {p['block']}, by angles of {p['angle']:.2g} rad"


def _other_attention(p: Parameters) -> str:
    where = "all layers" if p["layers"] == p["of"] else _some(p["layers"], "layer")
    kept = f", {', '.join(p['kept'])} kept" if p["kept"] else ""
    if p["to"] == "none":
        return f"attention taken out of {where} (it had {p['from']})"
    if p["to"] == p["from"]:
        return f"attention of {where} is another, of the same form; feed-forward layers kept"
    return f"attention replaced in {where}: {p['from']} -> {p['to']}{kept}; feed-forward layers kept"


#: Name of an operation → its sentence, from its parameters (:mod:`weightprint.operations`).
_SAYS: Mapping[str, Callable[[Parameters], str]] = {
    "rename": lambda p: f"{_some(p['tensors'], 'tensor')} renamed",
    "re_dtype": lambda p: f"stored as {p['dtype']} instead of {p['from']}",
    "transpose": lambda p: "matrices stored transposed",
    "quantise": _quantised,
    "scaled": _scaled,
    "reordered": lambda p: f"{_some(p['tensors'], 'tensor')} in another order: {p['order']}",
    "read_otherwise": lambda p: f"{_some(p['tensors'], 'tensor')} read otherwise: {p['order']}",
    "depth_upscaling": _stacked,
    "layer_shuffle": lambda p: "layers put in another order",
    "depth_drop": lambda p: f"{_some(p['count'], 'layer')} dropped: {', '.join(joined(p['layers'], limit=6))}",
    "layer_insertion": _inserted,
    "decoy_stack": lambda p: f"a stack of {_some(p['names'], 'tensor')} put beside it that is not the other model's",
    "moe_upcycling": _upcycled,
    "expert_split": _split,
    "expert_duplication": _repeated,
    "expert_drop": lambda p: f"experts dropped: {p['experts_of_a']} -> {p['experts']}",
    "experts_merged": lambda p: f"experts averaged in groups: {p['experts_of_a']} -> {p['experts']}",
    "expert_shuffle": lambda p: f"experts renumbered ({percent(p['share'])} of them)",
    "moe_to_dense": _dense,
    "ffn_pruning": lambda p: f"feed-forward units {p['units_of_a']:,} -> {p['units']:,}",
    "ffn_widening": _wider,
    "hidden_pruning": lambda p: f"model made narrower: {percent(p['keep'])} of the channels kept",
    "hidden_widening": lambda p: f"model made {p['factor']:g} times as wide, new channels {p['new']}",
    "attention_replaced": _other_attention,
    "kv_heads_repeated": lambda p: (
        f"keys and values repeated to {_some(p['kv_heads'], 'head')}, {p['order']}"
        + (": queries meet other keys than before" if p["order"] == "all of them in turn" else "")
    ),
    "heads_to_gqa": lambda p: f"attention heads made to share keys and values: {p['kv_heads']} of these left",
    "head_permutation": lambda p: "attention heads renumbered",
    "head_pruning": lambda p: f"attention heads dropped: {percent(p['keep'])} kept",
    "vocabulary_extension": _extended,
    "vocabulary_pruning": lambda p: f"vocabulary cut to {p['size']:,} tokens ({percent(p['keep'])})",
    "vocabulary_permutation": lambda p: f"{p['size']:,} tokens renumbered",
    "vocabulary_stitching": lambda p: f"{percent(p['share'])} of the token table's rows replaced",
    "vocabulary_swap": _swapped,
    "embedding_replaced": lambda p: f"token table replaced{', and the head' if p.get('head') else ', the head kept'}",
    "drop_biases": lambda p: "biases dropped",
    "layernorm_to_rmsnorm": lambda p: "LayerNorm made RMSNorm: offsets dropped",
    "learned_positions_to_rope": lambda p: "learned positions dropped, so rotary ones",
    "rotation": lambda p: "channels rotated, which changes nothing the model does",
    "channel_permutation": lambda p: f"channels reordered ({percent(p['share'])} moved), to the same function",
    "sign_flips": lambda p: f"signs flipped in pairs ({percent(p['share'])}), to the same function",
    "unit_permutation": lambda p: (
        f"feed-forward units {'sorted by norm' if p.get('sorted_by') else 'reordered'}, to the same function"
    ),
    "scale_folding": lambda p: "factors moved between matrices, to the same function",
    "per_head_maps": lambda p: "keys and values mixed inside each head, to the same function",
    "unstructured_pruning": _zeroed,
    "semi_structured_pruning": lambda p: f"pruned: {p['of'] - p['kept']} of every {p['of']} weights set to zero",
    "lora_merge": lambda p: f"a LoRA adapter of rank {p['rank']} merged into {', '.join(p['roles'])}",
    "directional_ablation": _ablated,
    "low_rank_factorised": _factorised,
    "orthogonal_multipliers": _turned,
    "gaussian_noise": _noise,
    "fine_tune": _trained("trained further"),
    "continued_pretraining": _trained("trained further and for long"),
}
